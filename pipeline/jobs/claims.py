"""Claiming, holding and giving back jobs. One unit of work each; the docstrings name the race each settles.

A claim gives its holder a *fence*: a number that grows with every claim. Whatever the holder writes later names it, and
is refused once somebody else holds a newer one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, exists, literal, or_, select, update
from sqlalchemy.exc import IntegrityError

from pipeline.database import Database, now_ms, rows_affected
from pipeline.errors import StaleFence, Unavailable
from pipeline.jobs.states import JOB_TRANSITIONS, JobState, RunState, sources
from pipeline.jobs.tables import JobRow, RunRow
from pipeline.telemetry import metrics

JOBS = JobRow.metadata.tables["jobs"]
"""The table, for statements that need no mapped class."""

_RELEASE_TRIES = 5
_PENDING, _RUNNING = JobState.PENDING.value, JobState.RUNNING.value


@dataclass(frozen=True, slots=True)
class ClaimedJob:
    """A job this worker owns until its lease ends."""

    pk: int
    kind: str
    queue: str
    corpus_pk: int
    bucket: int | None
    run_id: str | None
    range_start: int | None
    range_end: int | None
    cursor: int | None
    fence: int
    deliveries: int
    """Claims since it last made progress, this one included."""
    attempts: int
    breadcrumb: int | None
    """Document that an earlier holder was at when it died."""
    lease_s: float

    @property
    def is_suspicious(self) -> bool:
        """Whether an earlier holder died: go document by document and leave breadcrumbs."""
        return self.deliveries > 1 or self.breadcrumb is not None


def claim(
    database: Database, job_pk: int, *, worker: str, delivery_id: str, redelivered: bool, lease_s: float
) -> ClaimedJob | None:
    """Take a job, or return None if it is not to be had: finished, not due, or somebody else's.

    Two workers with the same message race here: one compare-and-set decides, the other gets None. A message that the
    broker redelivers because its worker died takes the job over at once, without waiting for the lease.
    The delivery is counted before any work, so that a job which kills its worker cannot do so unnoticed.
    """
    holder_died = or_(JOBS.c.lease_until < now_ms(), and_(JOBS.c.delivery_id == delivery_id, literal(redelivered)))
    other = JOBS.alias("other")
    same_key_runs = exists().where(
        other.c.pk != JOBS.c.pk,
        other.c.kind == "event",
        other.c.state == _RUNNING,
        other.c.corpus_pk == JOBS.c.corpus_pk,
        other.c.queue == JOBS.c.queue,
        other.c.bucket == JOBS.c.bucket,
    )
    statement = (
        update(JOBS)
        .where(
            JOBS.c.pk == job_pk,
            or_(
                and_(JOBS.c.state == _PENDING, JOBS.c.available_at <= now_ms()),
                and_(JOBS.c.state == _RUNNING, holder_died),
            ),
            ~same_key_runs,
            run_goes_on(),
        )
        .values(
            state=_RUNNING,
            fence=JOBS.c.fence + 1,
            deliveries=JOBS.c.deliveries + 1,
            worker=worker,
            delivery_id=delivery_id,
            lease_until=now_ms() + round(lease_s * 1000),
            claimed_at=now_ms(),
        )
        .returning(*(JOBS.c[name] for name in _CLAIMED))
    )
    try:
        with database.write() as connection:
            row = connection.execute(statement).first()
            if row is None:
                _forget_publication(connection, job_pk)
    except IntegrityError:
        # Another job of the same key began running between the check and the update; the dispatcher comes back to it.
        return None
    return ClaimedJob(**row._mapping, lease_s=lease_s) if row else None  # noqa: SLF001  # SQLAlchemy's public name


def run_goes_on() -> ColumnElement[bool]:
    """Return the condition that a job's run, if it has one, is neither paused nor ended."""
    goes_on = exists().where(
        RunRow.id == JOBS.c.run_id, RunRow.state.in_([RunState.PENDING.value, RunState.RUNNING.value])
    )
    return or_(JOBS.c.run_id.is_(None), goes_on)


def _forget_publication(connection: Connection, job_pk: int) -> None:
    """A job that could not be claimed yet has used up its message: it is to be published again when it is due."""
    connection.execute(update(JOBS).where(JOBS.c.pk == job_pk, JOBS.c.state == _PENDING).values(published_at=None))


_CLAIMED = (
    "pk",
    "kind",
    "queue",
    "corpus_pk",
    "bucket",
    "run_id",
    "range_start",
    "range_end",
    "cursor",
    "fence",
    "deliveries",
    "attempts",
    "breadcrumb",
)


def check_fence(connection: Connection, job: ClaimedJob) -> None:
    """Lock the job's row and renew its lease if it is still this holder's.

    A worker that was paused longer than its lease wakes up here: the row has a newer fence or another state, and
    everything it was about to write is refused with the transaction.

    Raises:
        StaleFence: Somebody else owns it, or it was cancelled.
    """
    _update_held(connection, job, lease_until=now_ms() + round(job.lease_s * 1000))


def leave_breadcrumb(database: Database, job: ClaimedJob, document_pk: int) -> None:
    """Write down which document is about to be touched, before it can kill this process.

    Raises:
        StaleFence: Somebody else owns the job.
    """
    with database.write() as connection:
        _update_held(connection, job, breadcrumb=document_pk)


def record_progress(connection: Connection, job: ClaimedJob, *, cursor: int | None = None) -> None:
    """After a slice: the job works, so what went wrong earlier no longer counts against it.

    Raises:
        StaleFence: Somebody else owns the job.
    """
    moved = {} if cursor is None else {"cursor": cursor}
    _update_held(connection, job, deliveries=1, attempts=0, breadcrumb=None, last_error=None, **moved)


def heartbeat(database: Database, job: ClaimedJob) -> None:
    """Renew the lease between slices.

    Raises:
        StaleFence: Somebody else owns the job.
    """
    with database.write() as connection:
        check_fence(connection, job)


def finish(connection: Connection, job: ClaimedJob, *, state: JobState, error: str | None = None) -> None:
    """End a job that this holder still owns.

    Raises:
        StaleFence: Somebody else owns it.
    """
    _update_held(
        connection,
        job,
        state=state.value,
        worker=None,
        lease_until=None,
        finished_at=now_ms(),
        breadcrumb=None,
        last_error=error,
    )


def yield_job(connection: Connection, job: ClaimedJob) -> None:
    """Return a job that has work left, so that others get a turn; neither a failure nor an interruption.

    Raises:
        StaleFence: Somebody else owns it.
    """
    _update_held(
        connection,
        job,
        state=_PENDING,
        worker=None,
        lease_until=None,
        deliveries=0,
        breadcrumb=None,
        available_at=now_ms(),
        published_at=None,
    )


def give_back(connection: Connection, job: ClaimedJob, *, error: str, delay_s: float, suspects_work: bool) -> None:
    """Return a job whose attempt came to nothing; it is due again after a delay.

    If a younger pending job of the same key exists, it takes the work over and this one ends.

    Args:
        connection: An open writing unit.
        job: The failed job.
        error: Why, in one sentence.
        delay_s: Seconds until it is due.
        suspects_work: Whether one of its documents may be the cause; False when an outside service is, and then it
            counts neither as a failed attempt nor as a delivery.

    Raises:
        StaleFence: Somebody else owns it.
    """
    _update_held(connection, job, attempts=JOBS.c.attempts + int(suspects_work), breadcrumb=None)
    release(connection, job.pk, error=error, delay_s=delay_s, keeps_count=suspects_work)


def release(connection: Connection, job_pk: int, *, error: str, delay_s: float, keeps_count: bool) -> None:
    """Move a running job back to pending, folding it into a pending job of its key if there is one.

    Args:
        connection: An open writing unit.
        job_pk: The job; nothing happens unless it is running.
        error: Why.
        delay_s: Seconds until it is due.
        keeps_count: Whether its delivery counts as one that may have killed the worker.
    """
    running = select(JOBS).where(JOBS.c.pk == job_pk, JOBS.c.state == _RUNNING).with_for_update()
    row = connection.execute(running).first()
    if row is None:
        return
    waiting = {
        "available_at": now_ms() + round(delay_s * 1000),
        "published_at": None,
        "deliveries": row.deliveries if keeps_count else 0,
        "attempts": row.attempts,
        "breadcrumb": row.breadcrumb,
        "last_error": error,
    }
    ended = {"state": JobState.CANCELLED.value, "finished_at": now_ms(), "last_error": f"{error}; taken over"}
    for _ in range(_RELEASE_TRIES):
        if _hand_over(connection, row, waiting):
            _leave_running(connection, job_pk, **ended)
            return
        try:
            with connection.begin_nested():
                _leave_running(connection, job_pk, state=_PENDING, **waiting)
        except IntegrityError:
            continue  # a request has just committed a pending job of this key: that one takes it over
        return
    raise Unavailable(f"job {job_pk} could not be released", service="database")


def _hand_over(connection: Connection, row: Row[Any], waiting: Mapping[str, object]) -> bool:
    """Let the pending job of an event job's key take over, its age as well; return whether there is one."""
    heir = (
        JOBS.c.kind == "event",
        JOBS.c.state == _PENDING,
        JOBS.c.corpus_pk == row.corpus_pk,
        JOBS.c.queue == row.queue,
        JOBS.c.bucket == row.bucket,
    )
    inherited = {**waiting, "created_at": row.created_at}
    return row.kind == "event" and rows_affected(connection.execute(update(JOBS).where(*heir).values(inherited))) > 0


def rescue_expired(database: Database) -> list[int]:
    """Return every running job whose lease ended to pending, without back-off; return their numbers.

    A holder that is only slow races with this: its next write names an older fence and is refused, unless it renewed
    its lease first. One transaction a job, so that none waits for a request while it holds what that waits for.
    """
    expired = select(JOBS.c.pk).where(JOBS.c.state == _RUNNING, JOBS.c.lease_until < now_ms()).order_by(JOBS.c.pk)
    with database.read() as connection:
        found = list(connection.execute(expired).scalars())
    return [job_pk for job_pk in found if _rescue(database, expired.where(JOBS.c.pk == job_pk), job_pk)]


def _rescue(database: Database, still_expired: Select[int], job_pk: int) -> bool:
    with database.write() as connection:
        if connection.execute(still_expired.with_for_update(skip_locked=True)).first() is None:
            return False
        release(connection, job_pk, error="the worker stopped answering", delay_s=0, keeps_count=True)
    return True


def cancel_jobs_of_corpus(connection: Connection, corpus_pk: int) -> None:
    """Cancel everything a dropped corpus still had to do; holders find their fence refused."""
    connection.execute(
        update(JOBS)
        .where(
            JOBS.c.corpus_pk == corpus_pk,
            JOBS.c.kind != "drop",
            JOBS.c.state.in_([state.value for state in sources(JOB_TRANSITIONS, JobState.CANCELLED)]),
        )
        .values(
            state=JobState.CANCELLED.value,
            worker=None,
            lease_until=None,
            finished_at=now_ms(),
            last_error="the corpus was dropped",
        )
    )


def _leave_running(connection: Connection, job_pk: int, **values: object) -> None:
    connection.execute(update(JOBS).where(JOBS.c.pk == job_pk).values(worker=None, lease_until=None, **values))


def _update_held(connection: Connection, job: ClaimedJob, **values: object) -> None:
    held = (JOBS.c.pk == job.pk, JOBS.c.fence == job.fence, JOBS.c.state == _RUNNING)
    if not rows_affected(connection.execute(update(JOBS).where(*held).values(values))):
        metrics.FENCE_REJECTIONS.inc()
        raise StaleFence(f"job {job.pk} has a newer owner")
