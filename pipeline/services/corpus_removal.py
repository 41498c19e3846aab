"""Dropping a corpus: its name is free at once, its rows and points go afterwards, in slices."""

from sqlalchemy import delete, func, select

from pipeline.database import Database
from pipeline.documents.corpora import get_corpus, get_corpus_by_pk, mark_dropped
from pipeline.documents.tables import (
    ContentRow,
    CorpusRow,
    CorpusSpecRow,
    DocumentRow,
    IdempotencyKeyRow,
    LedgerRow,
    ManifestRow,
    PointIntentRow,
)
from pipeline.jobs.claims import ClaimedJob, cancel_jobs_of_corpus, check_fence, finish
from pipeline.jobs.run_totals import find_uncounted, keep_totals
from pipeline.jobs.runs import cancel_runs_of_corpus
from pipeline.jobs.states import JobState
from pipeline.jobs.store import request_drop_job
from pipeline.jobs.tables import JobRow, RunDifferenceRow, RunItemRow, ScheduleRow
from pipeline.retrieval.vector_index import VectorIndexWriter

_SLICE = 500
_DROPS = 715823101
"""First half of the number of PostgreSQL's advisory locks on names of corpora that are being dropped."""


def drop_corpus(database: Database, name: str) -> None:
    """Give a corpus' name free, cancel its work and queue the removal of its rows and points.

    Workers in the middle of it find their fence refused; its collection's name is never used again.

    Raises:
        NotFound: There is no such corpus.
    """
    with database.write() as connection:
        if not database.is_sqlite:
            # One after the other: each would lock jobs that the other wants, while it waits for the corpus.
            connection.execute(select(func.pg_advisory_xact_lock(_DROPS, func.hashtext(name))))
        corpus = get_corpus(connection, name)
        cancel_jobs_of_corpus(connection, corpus.pk)  # first: workers, too, lock a job before its corpus
        mark_dropped(connection, corpus)
        cancel_jobs_of_corpus(connection, corpus.pk)  # what requests left that were waited for
        cancel_runs_of_corpus(connection, corpus.pk)
        connection.execute(delete(IdempotencyKeyRow).where(IdempotencyKeyRow.corpus == name))
        request_drop_job(connection, corpus.pk)


def run_drop_job(database: Database, index: VectorIndexWriter, job: ClaimedJob) -> str:
    """Remove a dropped corpus' points, then its rows in slices; safe to repeat from any point.

    Raises:
        StaleFence: Somebody else owns the job.
        Unavailable: A service did not answer.
    """
    with database.read() as connection:
        corpus = get_corpus_by_pk(connection, job.corpus_pk)
    index.drop_collection(corpus.collection)
    while _keep_totals(database, job):
        pass
    while _delete_documents(database, job):
        pass
    with database.write() as connection:
        finish(connection, job, state=JobState.SUCCEEDED)
    return JobState.SUCCEEDED.value


def _keep_totals(database: Database, job: ClaimedJob) -> int:
    """Write down what some of the corpus' runs came to, before the rows go that it is counted from."""
    with database.write() as connection:
        check_fence(connection, job)
        run_ids = find_uncounted(connection, job.corpus_pk, limit=_SLICE)
        keep_totals(connection, run_ids)
    return len(run_ids)


def _delete_documents(database: Database, job: ClaimedJob) -> int:
    with database.write() as connection:
        check_fence(connection, job)
        slice_of = select(DocumentRow.pk).where(DocumentRow.corpus_pk == job.corpus_pk).limit(_SLICE)
        pks = list(connection.execute(slice_of).scalars())
        for table in (RunItemRow, RunDifferenceRow, ContentRow, ManifestRow, LedgerRow, PointIntentRow):
            connection.execute(delete(table).where(table.document_pk.in_(pks)))
        connection.execute(delete(DocumentRow).where(DocumentRow.pk.in_(pks)))
    return len(pks)


def purge_dropped(database: Database) -> int:
    """Remove the last rows of corpora whose removal has finished, but their runs; return how many corpora it were.

    Runs stay as long as those of other corpora do, and with them the row that has their corpus' name (see `retention`).
    """
    done = select(JobRow.corpus_pk).where(JobRow.kind == "drop", JobRow.finished_at.is_not(None))
    statement = select(CorpusRow.pk).where(CorpusRow.dropped_at.is_not(None), CorpusRow.pk.in_(done))
    with database.read() as connection:
        gone = list(connection.execute(statement).scalars())
    if gone:
        with database.write() as connection:
            for table in (JobRow, ScheduleRow, CorpusSpecRow):
                connection.execute(delete(table).where(table.corpus_pk.in_(gone)))
    return len(gone)
