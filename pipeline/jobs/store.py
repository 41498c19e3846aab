"""Creating jobs and looking at them.

Event jobs belong to no run: at most one is pending per (corpus, queue, bucket). That is how events coalesce.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, and_, case, delete, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from pipeline.database import Database, now_ms, rows_affected
from pipeline.documents.tables import CorpusRow, DocumentRow
from pipeline.jobs.claims import JOBS, run_goes_on
from pipeline.jobs.states import JobState
from pipeline.jobs.tables import PENDING_EVENT, JobRow, WorkerRow

QUEUES = ("interactive", "bulk", "maintenance")
"""Every queue work is routed to; each needs a worker."""

INTERACTIVE_LIMIT = 64
"""Changes of up to this many documents go by the interactive queue."""

_PENDING, _RUNNING = JobState.PENDING.value, JobState.RUNNING.value


def request_event_jobs(
    connection: Connection,
    corpus_pk: int,
    *,
    queue: str,
    buckets: Iterable[int],
    delay_ms: int = 0,
) -> None:
    """Make sure that a job will look at these buckets after this transaction commits.

    The pending row is locked, not only seen: a claim of it waits for this transaction and then sees its documents, or
    it won and this inserts a new row. Buckets are taken in order, so that two requests do not deadlock.
    """
    rows = [
        {
            "kind": "event",
            "queue": queue,
            "corpus_pk": corpus_pk,
            "bucket": bucket,
            "state": _PENDING,
            "fence": 0,
            "deliveries": 0,
            "attempts": 0,
        }
        for bucket in sorted(set(buckets))
    ]
    dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    due = now_ms() + delay_ms
    for row in rows:
        statement = dialect(JOBS).values(**row, created_at=now_ms(), available_at=due)
        earlier = case((JOBS.c.available_at < statement.excluded.available_at, JOBS.c.available_at), else_=due)
        connection.execute(
            statement.on_conflict_do_update(
                index_elements=["corpus_pk", "queue", "bucket"],
                index_where=PENDING_EVENT,
                set_={"available_at": earlier},
            )
        )


def insert_range_job(
    connection: Connection, corpus_pk: int, *, run_id: str, kind: str, start: int, end: int, delay_s: float = 0.0
) -> None:
    """Queue the documents above row `start` up to and with row `end` for a run, to be worked on after a delay."""
    queue = "maintenance" if kind in ("verify", "gc") else "bulk"
    values = {"kind": kind, "queue": queue, "corpus_pk": corpus_pk, "run_id": run_id}
    ranged = {"range_start": start, "range_end": end, "cursor": start}
    fresh = {"state": _PENDING, "fence": 0, "deliveries": 0, "attempts": 0}
    due = now_ms() + round(delay_s * 1000)
    connection.execute(insert(JobRow).values(**values, **ranged, **fresh, created_at=now_ms(), available_at=due))


def request_drop_job(connection: Connection, corpus_pk: int) -> None:
    """Queue the removal of a dropped corpus' rows and points."""
    connection.execute(
        insert(JobRow).values(
            kind="drop",
            queue="maintenance",
            corpus_pk=corpus_pk,
            state=_PENDING,
            fence=0,
            deliveries=0,
            attempts=0,
            created_at=now_ms(),
            available_at=now_ms(),
        )
    )


def requeue_forgotten(database: Database) -> int:
    """Create the missing jobs of documents that are behind with none; return how many.

    Belt and braces: every path that leaves a document behind also leaves a job. This finds what a path forgot.
    """
    behind = (DocumentRow.published_generation < DocumentRow.generation) & (DocumentRow.state != "dead")
    kept = exists().where(CorpusRow.pk == DocumentRow.corpus_pk, CorpusRow.dropped_at.is_(None))
    unfinished = exists().where(
        JOBS.c.kind == "event",
        JOBS.c.finished_at.is_(None),
        JOBS.c.corpus_pk == DocumentRow.corpus_pk,
        JOBS.c.queue == DocumentRow.queue,
        JOBS.c.bucket == DocumentRow.bucket,
    )
    statement = (
        select(DocumentRow.corpus_pk, DocumentRow.queue, DocumentRow.bucket).where(behind, kept, ~unfinished).distinct()
    )
    with database.read() as connection:
        keys = list(connection.execute(statement))
    if keys:
        with database.write() as connection:
            for corpus_pk, queue, bucket in sorted(keys):
                request_event_jobs(connection, corpus_pk, queue=queue, buckets=[bucket])
    return len(keys)


def prune_finished(database: Database, *, older_than_ms: int, limit: int = 5000) -> int:
    """Delete event jobs that ended long ago; what they did is in documents and run items. Return how many went."""
    old = (
        select(JOBS.c.pk)
        .where(JOBS.c.kind == "event", JOBS.c.finished_at < now_ms() - older_than_ms)
        .order_by(JOBS.c.pk)
        .limit(limit)
    )
    with database.write() as connection:
        return rows_affected(connection.execute(delete(JOBS).where(JOBS.c.pk.in_(old))))


@dataclass(frozen=True, slots=True)
class Publishable:
    """A pending job to hand to the broker."""

    pk: int
    queue: str


def choose_publishable(connection: Connection, queue: str, *, limit: int, republish_ms: int) -> list[Publishable]:
    """Return due pending jobs nobody was told of lately, corpora in turn, oldest first within each.

    Jobs whose key is running or whose run is paused are left for later: they could not be claimed.
    """
    other = JOBS.alias("other")
    key_runs = exists().where(
        other.c.kind == "event",
        other.c.state == _RUNNING,
        other.c.corpus_pk == JOBS.c.corpus_pk,
        other.c.queue == JOBS.c.queue,
        other.c.bucket == JOBS.c.bucket,
    )
    turn = func.row_number().over(partition_by=JOBS.c.corpus_pk, order_by=(JOBS.c.available_at, JOBS.c.pk))
    due = (
        select(JOBS.c.pk, turn.label("turn"))
        .where(
            JOBS.c.state == _PENDING,
            JOBS.c.queue == queue,
            JOBS.c.available_at <= now_ms(),
            or_(JOBS.c.published_at.is_(None), JOBS.c.published_at < now_ms() - republish_ms),
            ~key_runs,
            run_goes_on(),
        )
        .subquery()
    )
    statement = select(due.c.pk).order_by(due.c.turn, due.c.pk).limit(limit)
    return [Publishable(pk, queue) for pk in connection.execute(statement).scalars()]


def count_outstanding(connection: Connection, queue: str, *, republish_ms: int) -> int:
    """Return how many jobs of a queue were published lately and not claimed yet."""
    statement = (
        select(func.count())
        .select_from(JOBS)
        .where(JOBS.c.state == _PENDING, JOBS.c.queue == queue, JOBS.c.published_at >= now_ms() - republish_ms)
    )
    return int(connection.execute(statement).scalar_one())


def mark_published(connection: Connection, pks: Iterable[int]) -> None:
    """Note that the broker was told of these jobs; a job claimed meanwhile is left as it is."""
    connection.execute(
        update(JOBS).where(JOBS.c.pk.in_(list(pks)), JOBS.c.state == _PENDING).values(published_at=now_ms())
    )


def mark_unpublished(connection: Connection, queue: str, *, older_than_ms: int) -> int:
    """Forget that unclaimed jobs of a queue were published: the broker lost them. Return how many."""
    lost = (JOBS.c.state == _PENDING, JOBS.c.queue == queue, JOBS.c.published_at < now_ms() - older_than_ms)
    return rows_affected(connection.execute(update(JOBS).where(*lost).values(published_at=None)))


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """How a queue stands."""

    name: str
    depth: int
    """Pending jobs."""
    running: int
    oldest_age_s: float
    """Seconds the oldest job has waited: since it was due, or since it was made if an attempt came to nothing."""
    overdue_s: float
    """Seconds that a job could have been claimed already; 0 when none is due."""
    workers: int
    """Prefork children of workers seen lately that consume it."""


def queue_status(connection: Connection, *, alive_ms: int = 30_000) -> list[QueueStatus]:
    """Return depth, running jobs, oldest wait and workers of every queue; jobs of paused runs do not wait.

    A job in back-off is not due, again and again: its age counts from its beginning, or it would never grow old.
    """
    due = and_(JOBS.c.state == _PENDING, JOBS.c.available_at <= now_ms())
    put_off = and_(JOBS.c.state == _PENDING, JOBS.c.last_error.is_not(None))
    statement = (
        select(
            JOBS.c.queue,
            func.sum(case((JOBS.c.state == _PENDING, 1), else_=0)),
            func.sum(case((JOBS.c.state == _RUNNING, 1), else_=0)),
            now_ms() - func.min(case((put_off, JOBS.c.created_at), (due, JOBS.c.available_at))),
            now_ms() - func.min(case((due, JOBS.c.available_at))),
        )
        .where(JOBS.c.finished_at.is_(None), run_goes_on())
        .group_by(JOBS.c.queue)
    )
    counted = {queue: tuple(counts) for queue, *counts in connection.execute(statement)}
    slots = worker_slots(connection, alive_ms=alive_ms)
    return [
        QueueStatus(
            queue,
            depth=int(depth),
            running=int(running),
            oldest_age_s=max(0, age or 0) / 1000,
            overdue_s=max(0, overdue or 0) / 1000,
            workers=slots.get(queue, 0),
        )
        for queue, (depth, running, age, overdue) in ((queue, counted.get(queue, (0, 0, 0, 0))) for queue in QUEUES)
    ]


def worker_slots(connection: Connection, *, alive_ms: int) -> dict[str, int]:
    """Return how many prefork children of live workers consume each queue."""
    slots: dict[str, int] = {}
    alive = select(WorkerRow.queues, WorkerRow.concurrency).where(WorkerRow.seen_at >= now_ms() - alive_ms)
    for queues, concurrency in connection.execute(alive):
        for queue in queues.split(","):
            slots[queue] = slots.get(queue, 0) + concurrency
    return slots
