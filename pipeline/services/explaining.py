"""Why a document is, or is not, served and cached: everything SQL and the cache know about it, and what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, select

from pipeline.database import now_ms
from pipeline.documents.corpora import Corpus
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import DocumentRow
from pipeline.errors import NotFound
from pipeline.jobs.claims import JOBS
from pipeline.jobs.states import JobState, Outcome
from pipeline.jobs.store import queue_status
from pipeline.jobs.tables import RunItemRow, RunRow
from pipeline.services.inspection import DocumentReport, PresenceCheck, get_document


@dataclass(frozen=True, slots=True)
class JobReport:
    """An unfinished job that would publish the document."""

    job_id: int
    state: str
    due_in_s: float
    """Seconds until it may be claimed; 0 when it may be now."""
    lease_s: float | None
    """Seconds its holder's lease still lasts, negative when it is over; None while pending."""
    worker: str | None
    deliveries: int
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One document, seen from all sides."""

    document: DocumentReport
    asked_cache: bool
    """Whether `cached` of its passages is what the cache said just now, not what the ledger remembers."""
    published_generation: int
    """Newest change whose publication has finished, deletions included."""
    queue: str
    bucket: int
    attempts: int
    """Failed attempts at the head."""
    due_in_s: float
    """Seconds until a worker may try it again; 0 when it may now."""
    workers: int
    """Live prefork children that consume its queue."""
    jobs: tuple[JobReport, ...]
    runs: tuple[str, ...]
    """Runs that wait for it."""
    next: str
    """What happens next, in one sentence."""


def explain_document(
    connection: Connection, corpus: Corpus, document_id: str, *, is_present: PresenceCheck | None
) -> Explanation:
    """Return all there is to know about one document, a deleted one too.

    Args:
        connection: An open unit.
        corpus: Its corpus.
        document_id: Its id.
        is_present: Asks the cache; None to believe the ledger.

    Raises:
        NotFound: There never was one of that id.
        Unavailable: The cache was asked and did not answer.
    """
    row = connection.execute(_row(corpus, document_id)).first()
    if row is None:
        raise NotFound(f"there is no document {document_id!r} in corpus {corpus.name!r}")
    jobs = _jobs(connection, row)
    workers = {queue.name: queue.workers for queue in queue_status(connection)}[row.queue]
    document = _document(connection, corpus, row, is_present)
    due_in_s = max(0, row.available_at - row.now) / 1000
    return Explanation(
        document=document,
        asked_cache=is_present is not None,
        published_generation=row.published_generation,
        queue=row.queue,
        bucket=row.bucket,
        attempts=row.attempts,
        due_in_s=due_in_s,
        workers=workers,
        jobs=jobs,
        runs=_runs(connection, row.pk),
        next=what_next(
            document,
            published_generation=row.published_generation,
            jobs=jobs,
            workers=workers,
            due_in_s=due_in_s,
            backfills=_backfills(connection, corpus.pk),
        ),
    )


def what_next(
    document: DocumentReport,
    *,
    published_generation: int,
    jobs: tuple[JobReport, ...],
    workers: int,
    due_in_s: float,
    backfills: Sequence[str] = (),
) -> str:
    """Return in one sentence what will happen to a document without anybody doing anything, or what must be done."""
    if document.state == DocumentState.DEAD:
        return "nothing: its newest generation failed for good; ingest it again once the cause is gone"
    if published_generation >= document.generation:
        if document.state == DocumentState.DELETED:
            return "nothing: it is deleted, and search cannot find it any more"
        missing = sum(not passage.cached for passage in document.passages)
        if missing:
            if backfills:
                return f"{missing} of its entries are not in the cache: run {backfills[0]} fills them again"
            return f"{missing} of its entries are not in the cache: the next query that finds them writes them back"
        return "nothing: its newest generation is served, and every entry is in the cache"
    return _of_waiting(jobs, workers=workers, due_in_s=due_in_s)


def _of_waiting(jobs: tuple[JobReport, ...], *, workers: int, due_in_s: float) -> str:
    running = [job for job in jobs if job.state == JobState.RUNNING]
    if running:
        if running[0].lease_s is not None and running[0].lease_s < 0:
            return "its worker stopped answering: the dispatcher takes the job back at its next look"
        return f"worker {running[0].worker} is at its bucket: it is published with this job or the next"
    if not jobs:
        return "no job would publish it: the dispatcher makes one within seconds, if one runs"
    if workers == 0:
        return "it waits for a worker that consumes its queue: start `forefill worker`"
    wait_s = max(due_in_s, jobs[0].due_in_s)
    if wait_s > 0:
        return f"it is tried again in {wait_s:.0f} s"
    return "a worker takes its job as soon as one is free"


def _row(corpus: Corpus, document_id: str) -> "Select[*tuple[Any, ...]]":
    return select(
        DocumentRow.pk,
        DocumentRow.id,
        DocumentRow.corpus_pk,
        DocumentRow.state,
        DocumentRow.generation,
        DocumentRow.published_generation,
        DocumentRow.served_generation,
        DocumentRow.queue,
        DocumentRow.bucket,
        DocumentRow.attempts,
        DocumentRow.available_at,
        DocumentRow.last_error,
        now_ms().label("now"),
    ).where(DocumentRow.corpus_pk == corpus.pk, DocumentRow.id == document_id)


def _document(
    connection: Connection, corpus: Corpus, row: "Row[*tuple[Any, ...]]", is_present: PresenceCheck | None
) -> DocumentReport:
    if row.state != DocumentState.DELETED:
        return get_document(connection, corpus, row.id, is_present=is_present)
    return DocumentReport(row.id, row.generation, row.served_generation, row.state, (), row.last_error)


def _jobs(connection: Connection, row: "Row[*tuple[Any, ...]]") -> tuple[JobReport, ...]:
    statement = (
        select(JOBS)
        .where(JOBS.c.kind == "event", JOBS.c.finished_at.is_(None), JOBS.c.corpus_pk == row.corpus_pk)
        .where(JOBS.c.queue == row.queue, JOBS.c.bucket == row.bucket)
        .order_by(JOBS.c.pk)
    )
    return tuple(
        JobReport(
            job_id=job.pk,
            state=job.state,
            due_in_s=max(0, job.available_at - row.now) / 1000,
            lease_s=None if job.lease_until is None else (job.lease_until - row.now) / 1000,
            worker=job.worker,
            deliveries=job.deliveries,
            last_error=job.last_error,
        )
        for job in connection.execute(statement)
    )


def _backfills(connection: Connection, corpus_pk: int) -> list[str]:
    """Return the unfinished runs that write missing entries of a corpus, the oldest first."""
    statement = select(RunRow.id).where(
        RunRow.corpus_pk == corpus_pk, RunRow.kind.in_(["backfill", "retokenize"]), RunRow.finished_at.is_(None)
    )
    return list(connection.execute(statement.order_by(RunRow.id)).scalars())


def _runs(connection: Connection, document_pk: int) -> tuple[str, ...]:
    statement = select(RunItemRow.run_id).where(
        RunItemRow.document_pk == document_pk, RunItemRow.outcome == Outcome.PENDING.value
    )
    return tuple(connection.execute(statement.order_by(RunItemRow.run_id)).scalars())
