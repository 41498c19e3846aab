"""Tables of runs, their items, jobs, schedules, and who is alive."""

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from pipeline.database import Base, Identity, Millis
from pipeline.database.base import BIG_INTEGER

PENDING_EVENT = text("kind = 'event' AND state = 'pending'")
"""Predicate of the partial index that keeps event jobs apart; an upsert must repeat it to the letter."""

_RUNNING_EVENT = text("kind = 'event' AND state = 'running'")


class ScheduleRow(Base):
    """When a corpus is worked on by itself."""

    __tablename__ = "schedules"
    __table_args__ = (UniqueConstraint("corpus_pk", "kind"), {"sqlite_autoincrement": True})

    pk: Mapped[Identity]
    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk"))
    kind: Mapped[str] = mapped_column(String(16))
    cron: Mapped[str] = mapped_column(String(200))
    timezone: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[Millis]


class RunRow(Base):
    """One piece of work an operator can name."""

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint("kind IN ('ingest', 'delete', 'retokenize', 'backfill', 'verify', 'gc')", name="kind_known"),
        CheckConstraint(
            "state IN ('pending', 'running', 'paused', 'succeeded', 'partial', 'failed', 'cancelled')",
            name="state_known",
        ),
        CheckConstraint(
            "(state IN ('succeeded', 'partial', 'failed', 'cancelled')) = (finished_at IS NOT NULL)",
            name="ended_iff_finished",
        ),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_has_cause"),
        CheckConstraint("sealed = (open_until IS NULL)", name="open_iff_not_sealed"),
        UniqueConstraint("schedule_pk", "nominal_at"),
        Index("ix_runs_corpus_pk_id", "corpus_pk", "id"),
        Index("ix_runs_ended", "state", "finished_at"),
        Index(
            "ix_runs_unfinished",
            "state",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    """UUID version 7: ids sort by creation."""
    kind: Mapped[str] = mapped_column(String(16))
    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk"))
    spec_id: Mapped[str | None] = mapped_column(ForeignKey("specs.id"))
    state: Mapped[str] = mapped_column(String(16))
    sealed: Mapped[bool] = mapped_column(Boolean)
    """False while a client may still add documents."""
    open_until: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """When an open run whose client fell silent is sealed by the dispatcher."""
    options: Mapped[str] = mapped_column(Text, default="{}")
    """What the run was asked to do, JSON."""
    upper_bound: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Range runs: the largest document row at the start; later ones are not in it."""
    error: Mapped[str | None] = mapped_column(Text)
    schedule_pk: Mapped[int | None] = mapped_column(ForeignKey("schedules.pk", ondelete="SET NULL"))
    nominal_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Time the schedule meant; with the schedule, unique."""
    created_at: Mapped[Millis]
    started_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    finished_at: Mapped[int | None] = mapped_column(BIG_INTEGER)


class RunItemRow(Base):
    """What became of one document in one run."""

    __tablename__ = "run_items"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('pending', 'done', 'unchanged', 'superseded', 'dead', 'cancelled')", name="outcome_known"
        ),
        CheckConstraint("(outcome = 'dead') = (error IS NOT NULL)", name="dead_iff_error"),
        Index(
            "ix_run_items_waiting",
            "document_pk",
            sqlite_where=text("outcome = 'pending'"),
            postgresql_where=text("outcome = 'pending'"),
        ),
        Index("ix_run_items_run_id_outcome", "run_id", "outcome"),
    )

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    document_pk: Mapped[int] = mapped_column(
        ForeignKey("documents.pk"), primary_key=True, autoincrement=False, index=True
    )
    generation: Mapped[int] = mapped_column(BIG_INTEGER)
    outcome: Mapped[str] = mapped_column(String(16))
    tokens: Mapped[int] = mapped_column(BIG_INTEGER, default=0)
    """Tokens of the document under the corpus' active spec."""
    stage: Mapped[str | None] = mapped_column(String(32))
    """Where it failed: `split`, `tokenize`, `embed`, `publish`, `worker`."""
    error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    updated_at: Mapped[Millis]


class JobRow(Base):
    """What one worker claims. SQL decides; Celery only carries the number."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('event', 'retokenize', 'backfill', 'verify', 'gc', 'drop')",
            name="kind_known",
        ),
        CheckConstraint("queue IN ('interactive', 'bulk', 'maintenance')", name="queue_known"),
        CheckConstraint(
            "state IN ('pending', 'running', 'succeeded', 'partial', 'dead', 'cancelled')", name="state_known"
        ),
        CheckConstraint("(state = 'running') = (lease_until IS NOT NULL)", name="running_iff_leased"),
        CheckConstraint("(state = 'running') = (worker IS NOT NULL)", name="running_iff_owned"),
        CheckConstraint("(state IN ('pending', 'running')) = (finished_at IS NULL)", name="ended_iff_finished"),
        CheckConstraint("(kind = 'event') = (bucket IS NOT NULL)", name="event_iff_bucket"),
        CheckConstraint("kind NOT IN ('event', 'drop') OR run_id IS NULL", name="event_without_run"),
        CheckConstraint("kind IN ('event', 'drop') OR (run_id IS NOT NULL AND range_end IS NOT NULL)", name="range"),
        CheckConstraint("state <> 'dead' OR last_error IS NOT NULL", name="dead_has_cause"),
        Index(
            "uq_jobs_pending_event",
            "corpus_pk",
            "queue",
            "bucket",
            unique=True,
            sqlite_where=PENDING_EVENT,
            postgresql_where=PENDING_EVENT,
        ),
        Index(
            "uq_jobs_running_event",
            "corpus_pk",
            "queue",
            "bucket",
            unique=True,
            sqlite_where=_RUNNING_EVENT,
            postgresql_where=_RUNNING_EVENT,
        ),
        Index(
            "uq_jobs_range",
            "run_id",
            "range_start",
            unique=True,
            sqlite_where=text("run_id IS NOT NULL"),
            postgresql_where=text("run_id IS NOT NULL"),
        ),
        Index(
            "ix_jobs_unfinished",
            "state",
            "queue",
            "available_at",
            sqlite_where=text("finished_at IS NULL"),
            postgresql_where=text("finished_at IS NULL"),
        ),
        {"sqlite_autoincrement": True},
    )

    pk: Mapped[Identity]
    kind: Mapped[str] = mapped_column(String(16))
    queue: Mapped[str] = mapped_column(String(16))
    corpus_pk: Mapped[int] = mapped_column(ForeignKey("corpora.pk"))
    bucket: Mapped[int | None] = mapped_column(SmallInteger)
    """Event jobs: documents whose id hashes to it."""
    run_id: Mapped[str | None] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"))
    range_start: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Range jobs: document rows above this one …"""
    range_end: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """… up to and with this one."""
    cursor: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Range jobs: last document row that is finished."""
    state: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int] = mapped_column(BIG_INTEGER, default=0)
    """Grows with every claim; a write that names an older one is refused."""
    worker: Mapped[str | None] = mapped_column(String(200))
    delivery_id: Mapped[str | None] = mapped_column(String(64))
    """Celery's id of the message by which it was claimed."""
    lease_until: Mapped[int | None] = mapped_column(BIG_INTEGER)
    deliveries: Mapped[int] = mapped_column(Integer, default=0)
    """Claims since the last success, counted before any work."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Failed attempts of the job as a whole."""
    breadcrumb: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Document a redelivered job is about to touch: if the worker dies, this one did it."""
    created_at: Mapped[Millis]
    available_at: Mapped[Millis]
    """Not claimed before."""
    published_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Last time the dispatcher handed it to the broker."""
    claimed_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    finished_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    last_error: Mapped[str | None] = mapped_column(Text)


class RangeRunRow(Base):
    """A run over a range of documents: how far its jobs are planned, and what those that are gone have counted."""

    __tablename__ = "range_runs"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    expected: Mapped[int] = mapped_column(BIG_INTEGER)
    """Documents in its range when it began."""
    planned_to: Mapped[int] = mapped_column(BIG_INTEGER)
    """Last document row that a job was made for."""
    paused_at: Mapped[int | None] = mapped_column(BIG_INTEGER)
    """Since when it is paused."""
    paused_ms: Mapped[int] = mapped_column(BIG_INTEGER)
    """How long earlier pauses lasted."""
    done: Mapped[int] = mapped_column(BIG_INTEGER)
    """This and what follows: sums over its jobs, taken when it ends and they are deleted."""
    unchanged: Mapped[int] = mapped_column(BIG_INTEGER)
    superseded: Mapped[int] = mapped_column(BIG_INTEGER)
    dead: Mapped[int] = mapped_column(BIG_INTEGER)
    tokens: Mapped[int] = mapped_column(BIG_INTEGER)


class RangeCountRow(Base):
    """What one range job has counted so far; moves in one transaction with its cursor, so that it cannot drift."""

    __tablename__ = "range_counts"

    job_pk: Mapped[int] = mapped_column(
        ForeignKey("jobs.pk", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    done: Mapped[int] = mapped_column(BIG_INTEGER)
    unchanged: Mapped[int] = mapped_column(BIG_INTEGER)
    superseded: Mapped[int] = mapped_column(BIG_INTEGER)
    dead: Mapped[int] = mapped_column(BIG_INTEGER)
    tokens: Mapped[int] = mapped_column(BIG_INTEGER)
    """Tokens of the documents it handled under the run's spec, the active one by default."""


class RunDifferenceRow(Base):
    """One document whose stored state was not what a run computed."""

    __tablename__ = "run_differences"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    document_pk: Mapped[int] = mapped_column(
        ForeignKey("documents.pk"), primary_key=True, autoincrement=False, index=True
    )
    generation: Mapped[int] = mapped_column(BIG_INTEGER)
    difference: Mapped[str] = mapped_column(Text)
    """What differed, in a sentence."""
    found_at: Mapped[Millis]


class RunTotalsRow(Base):
    """What an ended run came to, from before the rows went that it was counted from."""

    __tablename__ = "run_totals"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    done: Mapped[int] = mapped_column(BIG_INTEGER)
    unchanged: Mapped[int] = mapped_column(BIG_INTEGER)
    superseded: Mapped[int] = mapped_column(BIG_INTEGER)
    dead: Mapped[int] = mapped_column(BIG_INTEGER)
    cancelled: Mapped[int] = mapped_column(BIG_INTEGER)
    tokens: Mapped[int] = mapped_column(BIG_INTEGER)
    differences: Mapped[int] = mapped_column(BIG_INTEGER)


class LeadershipRow(Base):
    """Who leads where one of several processes may: the dispatcher."""

    __tablename__ = "leaderships"

    role: Mapped[str] = mapped_column(String(32), primary_key=True)
    holder: Mapped[str] = mapped_column(String(200))
    lease_until: Mapped[Millis]


class WorkerRow(Base):
    """A worker process that said it is alive, or a beat that ticked, which consumes nothing."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    queues: Mapped[str] = mapped_column(String(200))
    """Comma-separated."""
    concurrency: Mapped[int] = mapped_column(Integer)
    started_at: Mapped[Millis]
    seen_at: Mapped[Millis]


class InstallationRow(Base):
    """Facts about this installation: the cache's epoch."""

    __tablename__ = "installation"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)
