"""A database with served corpora, their worker, and a cache that can be flushed, restarted and too small."""

from dataclasses import dataclass, field, replace

from pipeline.database import Database
from pipeline.jobs.range_runs import settle_ranges
from pipeline.jobs.run_reports import RunReport, list_runs
from pipeline.jobs.tables import RunRow
from pipeline.services.cache_epoch import Verdict, watch_cache
from pipeline.services.inspection import Coverage, list_coverage
from pipeline.services.refilling import pursue_refills
from pipeline.token_cache import CacheServer, MemoryStore
from pipeline.token_cache.memory import MemoryTokenWriter
from tests.support.write_path import CORPUS, InMemoryWorker, change_rows, ingestion, source

RUNS = RunRow.metadata.tables["runs"]


class Server(MemoryTokenWriter):
    """A cache in memory that can be flushed, restarted, and says that it has evicted something."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.store = store
        self.facts = replace(super().server(), run_id="first", append_only=True)

    def server(self) -> CacheServer:
        self.ping()
        return self.facts

    def restart(self, *, append_only: bool = True) -> None:
        self.facts = replace(self.facts, run_id=f"{self.facts.run_id}+", evicted_keys=0, append_only=append_only)

    def evict(self, count: int) -> None:
        for name in [name for name in self.store.names() if name != "ff:epoch"][:count]:
            self.store.drop(name)
        self.facts = replace(self.facts, evicted_keys=self.facts.evicted_keys + count)

    def flush(self) -> None:
        for name in self.store.names():
            self.store.drop(name)


@dataclass(slots=True)
class World:
    """A database with a served corpus, its worker, and the cache they share."""

    database: Database
    worker: InMemoryWorker = field(init=False)
    cache: Server = field(init=False)

    def __post_init__(self) -> None:
        self.worker = InMemoryWorker(self.database)
        self.cache = Server(self.worker.store)

    def put(self, count: int, *, corpus: str = CORPUS, text: str = "some text") -> None:
        """Set documents and have them served."""
        ingestion(self.database).put(corpus, [source(f"d{n}", f"{text} {n}") for n in range(count)])
        self.work()

    def watch(self) -> Verdict:
        """Look at the cache as a dispatcher does."""
        return watch_cache(self.database, self.cache)

    def work(self) -> None:
        """Run all jobs, and end what has finished."""
        self.worker.run_all()
        settle_ranges(self.database)

    def settle(self) -> list[str]:
        """Do what dispatcher and workers do until nothing is owed; return the backfills that took."""
        started: list[str] = []
        while self.owes():
            change_rows(self.database, RUNS, RUNS.c.finished_at.is_not(None), finished_at=RUNS.c.finished_at - 10_000)
            started += pursue_refills(self.database)
            self.work()
        return started

    def owes(self) -> bool:
        """Whether some corpus waits to be filled again."""
        with self.database.read() as connection:
            owed = connection.exec_driver_sql("SELECT count(*) FROM installation WHERE key LIKE 'refill:%%'")
            return bool(owed.scalar_one())

    def coverage(self, corpus: str = CORPUS) -> Coverage:
        """What status says of a corpus."""
        with self.database.read() as connection:
            (found,) = list_coverage(connection, corpora=[corpus])
        return found

    def runs(self, kind: str) -> list[RunReport]:
        """Runs of a kind, newest first."""
        with self.database.read() as connection:
            return [run for run in list_runs(connection) if run.kind == kind]

    def entries(self) -> int:
        """How many entries the cache holds."""
        return sum(name != "ff:epoch" for name in self.cache.store.names())
