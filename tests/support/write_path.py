"""Builders for tests of the write path: documents accepted by the real service, jobs run with outsides in memory."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, insert, select, text

from pipeline.database import Database, now_ms
from pipeline.documents.readers import SourceDocument
from pipeline.documents.splitting import Splitter
from pipeline.documents.tables import DocumentRow
from pipeline.jobs.claims import JOBS, ClaimedJob, claim
from pipeline.jobs.run_reports import RunReport, get_run
from pipeline.retrieval.memory import MemoryVectorIndex
from pipeline.services.event_jobs import JobLimits, WorkerResources
from pipeline.services.ingestion import CorpusDefaults, IngestionService
from pipeline.services.job_runner import JobRunner
from pipeline.services.spec_loading import SpecLoader
from pipeline.token_cache import MemoryStore
from pipeline.token_cache.memory import MemoryTokenWriter
from pipeline.tokenizers import load_spec
from tests.support.fence_world import NamedEmbedder
from tests.support.polling import eventually

CORPUS = "docs"
DOCUMENTS = DocumentRow.metadata.tables["documents"]


def ingestion(database: Database) -> IngestionService:
    """Build the service that accepts documents; it nudges nobody."""
    defaults = CorpusDefaults(
        spec=lambda: load_spec("o200k_base/plain"), splitter=Splitter().identity, embedder=NamedEmbedder.name
    )
    return IngestionService(database, defaults=defaults, nudge=lambda: None)


def source(document_id: str, text: str = "some text") -> SourceDocument:
    """Build one document."""
    return SourceDocument(document_id, text)


def sources(count: int, text: str = "some text") -> list[SourceDocument]:
    """Build documents `d0`, `d1`, …"""
    return [source(f"d{number}", text) for number in range(count)]


@dataclass(slots=True)
class InMemoryWorker:
    """Runs jobs over a real database, with cache and index in memory."""

    database: Database
    name: str = "worker-1"
    index: MemoryVectorIndex = field(default_factory=MemoryVectorIndex)
    store: MemoryStore = field(default_factory=MemoryStore)
    limits: JobLimits = field(default_factory=JobLimits)
    embedder: NamedEmbedder = field(default_factory=NamedEmbedder)

    @property
    def resources(self) -> WorkerResources:
        """What its jobs work with."""
        return WorkerResources(
            database=self.database,
            cache=MemoryTokenWriter(self.store),
            index=self.index,
            embedder=self.embedder,
            load_spec=SpecLoader(self.database).load,
            parse_splitter=Splitter.from_identity,
        )

    def run(self, job_pk: int) -> str:
        """Claim and run one job."""
        runner = JobRunner(self.resources, worker=self.name, lease_s=30, heartbeat_s=10, limits=self.limits)
        return runner.run(job_pk, delivery_id=f"{self.name}-{job_pk}", redelivered=False)

    def run_all(self) -> list[str]:
        """Run pending jobs that are due until none is left."""
        outcomes = []
        while due := [job.pk for job in jobs(self.database, state="pending") if is_due(self.database, job.pk)]:
            outcomes += [self.run(pk) for pk in due]
        return outcomes


def take(database: Database, job_pk: int, *, worker: str = "worker-1", **options: Any) -> ClaimedJob | None:
    """Claim a job as a worker would."""
    return claim(
        database, job_pk, **{"worker": worker, "delivery_id": worker, "redelivered": False, "lease_s": 30.0, **options}
    )


def taken(database: Database, job_pk: int, **options: Any) -> ClaimedJob:
    """Claim a job that is to be had."""
    job = take(database, job_pk, **options)
    assert job is not None, f"job {job_pk} was not to be had"
    return job


def jobs(database: Database, **equal: object) -> list[Row[Any]]:
    """Return job rows, oldest first."""
    with database.read() as connection:
        return list(connection.execute(select(JOBS).filter_by(**equal).order_by(JOBS.c.pk)))


def job(database: Database, pk: int) -> Row[Any]:
    """Return one job's row."""
    (row,) = jobs(database, pk=pk)
    return row


def is_due(database: Database, job_pk: int) -> bool:
    """Tell whether a job may be claimed by the clock."""
    return bool(job(database, job_pk).available_at <= database.clock_ms())


def document(database: Database, document_id: str) -> Row[Any]:
    """Return one document's row."""
    with database.read() as connection:
        return connection.execute(select(DOCUMENTS).where(DOCUMENTS.c.id == document_id)).one()


def report(database: Database, run_id: str) -> RunReport:
    """Return a run as its readers see it."""
    with database.read() as connection:
        return get_run(connection, run_id)


def change_rows(database: Database, table: Any, where: Any, **values: object) -> None:
    """Write what time would have done: an expired lease, a due date that has come."""
    with database.write() as connection:
        connection.execute(table.update().where(where).values(**values))


def expire_lease(database: Database, job_pk: int) -> None:
    """Let a job's lease be over."""
    change_rows(database, JOBS, JOBS.c.pk == job_pk, lease_until=now_ms() - 1)


def add_job(database: Database, corpus_pk: int, **values: object) -> int:
    """Insert a job row and return its number."""
    row = {
        "kind": "event",
        "queue": "interactive",
        "corpus_pk": corpus_pk,
        "bucket": 0,
        "state": "pending",
        "fence": 0,
        "deliveries": 0,
        "attempts": 0,
        **values,
    }
    with database.write() as connection:
        statement = insert(JOBS).values(**row, created_at=now_ms(), available_at=now_ms())
        pk = connection.execute(statement).inserted_primary_key
        assert pk is not None
        return int(pk[0])


def at_once(*works: Callable[[], object]) -> list[object]:
    """Do everything in threads that begin together; return results and errors in the order given."""
    results: list[object] = [None] * len(works)
    barrier = threading.Barrier(len(works))

    def run(place: int, work: Callable[[], object]) -> None:
        barrier.wait()
        try:
            results[place] = work()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            results[place] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive(), "a thread hangs"
    return results


def outcomes(reports: Sequence[RunReport]) -> list[str]:
    """Return the states of runs."""
    return [each.state for each in reports]


class Waiter:
    """Work in a thread that has begun, and waits for a transaction which the test holds open."""

    def __init__(self, database: Database, work: Callable[[], object]) -> None:
        self._result: object = None
        self._work = work
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self._begun.wait()
        if not database.is_sqlite:
            eventually(lambda: not self._thread.is_alive() or _waits_for_a_lock(database), describe="a waiting lock")

    def result(self) -> object:
        """Return what the work returned or raised, once the test's transaction is over."""
        self._thread.join(timeout=60)
        assert not self._thread.is_alive(), "the thread hangs"
        return self._result

    def _run(self) -> None:
        self._begun.set()
        try:
            self._result = self._work()
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self._result = error


def _waits_for_a_lock(database: Database) -> bool:
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with database.read() as connection:
        return bool(connection.execute(waiting).scalar_one())
