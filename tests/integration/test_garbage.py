"""Garbage collection: what nothing serves goes within the hour; what is served, or is about to be, stays."""

import pytest

from pipeline.database import Database
from pipeline.documents.tables import CorpusRow
from pipeline.jobs.chores import ChoreThread
from pipeline.jobs.claims import JOBS
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.tables import RunRow
from pipeline.services.garbage import EXPIRE_S, confirm_entries, sweep_entries
from pipeline.services.publishing import Publisher
from pipeline.services.range_runs import start_due_gc, start_range_run
from pipeline.token_cache import entry_key
from pipeline.token_cache.memory import MemoryTokenWriter
from pipeline.tokenizers import load_spec
from tests.support.write_path import CORPUS, InMemoryWorker, change_rows, ingestion, jobs, report, source
from workers.dispatching import choose_chores

SPEC = "o200k_base/plain"
FINGERPRINT = load_spec(SPEC).fingerprint


@pytest.fixture
def worker(database: Database) -> InMemoryWorker:
    """A worker whose cache holds one entry that is served and one that no longer is."""
    made = InMemoryWorker(database)
    service = ingestion(database)
    service.put(CORPUS, [source("kept"), source("changed", "the first edition")])
    made.run_all()
    service.put(CORPUS, [source("changed", "the second edition")])
    made.run_all()
    return made


def lives(worker: InMemoryWorker) -> list[bool]:
    """Tell of every entry whether it has no end."""
    names = [entry_key(*name) for name in MemoryTokenWriter(worker.store).scan()]
    return sorted(worker.store.ttl_s(name) is None for name in names)


def gc(database: Database, *, dry_run: bool = False) -> str:
    run_id = start_range_run(database, CORPUS, kind="gc", options=RangeOptions(dry_run=dry_run))
    assert run_id is not None
    return run_id


def test_what_nothing_serves_has_an_hour_to_live(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = gc(database)
    worker.run_all()
    assert lives(worker) == [False, True, True]
    under_way = report(database, run_id)
    assert (under_way.state, under_way.totals["done"], under_way.totals["unchanged"]) == ("running", 1, 2)
    (confirmation,) = jobs(database, run_id=run_id, state="pending")
    assert confirmation.available_at - database.clock_ms() > 100_000
    change_rows(database, JOBS, JOBS.c.pk == confirmation.pk, available_at=0)
    worker.run_all()
    assert lives(worker) == [False, True, True]
    assert report(database, run_id).state == "succeeded"


def test_a_dry_run_counts_only(worker: InMemoryWorker) -> None:
    run_id = gc(worker.database, dry_run=True)
    worker.run_all()
    ended = report(worker.database, run_id)
    assert (ended.state, ended.totals["done"]) == ("succeeded", 1)
    assert lives(worker) == [True, True, True]


def test_a_publication_that_began_before_the_sweep_and_ends_after_it_keeps_its_entries(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, cache = worker.database, MemoryTokenWriter(worker.store)
    ingestion(database).put(CORPUS, [source("new", "written before it is named")])
    settle = Publisher._settle

    def sweeping(self: Publisher, mine: object) -> None:
        assert sweep_entries(database, cache, SPEC, FINGERPRINT, dry_run=False) == (2, 2)
        settle(self, mine)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(Publisher, "_settle", sweeping)
    worker.run_all()
    assert lives(worker) == [False, False, True, True]
    assert confirm_entries(database, cache, SPEC, FINGERPRINT) == 3
    assert lives(worker) == [False, True, True, True]


def test_garbage_that_is_written_again_stays(worker: InMemoryWorker) -> None:
    gc(worker.database)
    worker.run_all()
    ingestion(worker.database).put(CORPUS, [source("again", "the first edition")])
    worker.run_all()
    assert lives(worker) == [True, True, True]
    assert EXPIRE_S == 3600


def test_entries_of_another_corpus_are_not_garbage(worker: InMemoryWorker) -> None:
    ingestion(worker.database).put("other", [source("x", "the first edition")])
    worker.run_all()
    run_id = gc(worker.database)
    worker.run_all()
    assert report(worker.database, run_id).totals["done"] == 0


def test_tombstones_go_after_a_day(worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(type(worker.index), "purge_buried", lambda _self, _name, *, before_ms: asked.append(before_ms))
    gc(worker.database)
    worker.run_all()
    (before_ms,) = asked
    assert 0 <= worker.database.clock_ms() - 24 * 3_600_000 - before_ms < 60_000


def test_garbage_is_collected_once_a_day_without_being_asked(worker: InMemoryWorker) -> None:
    database = worker.database
    assert start_due_gc(database) is None, "a new corpus has no garbage"
    corpora, runs = CorpusRow.metadata.tables["corpora"], RunRow.metadata.tables["runs"]
    change_rows(database, corpora, corpora.c.pk > 0, created_at=1)
    run_id = start_due_gc(database)
    assert run_id is not None
    assert start_due_gc(database) is None
    worker.run_all()
    change_rows(database, JOBS, JOBS.c.run_id == run_id, available_at=0)
    worker.run_all()
    assert report(database, run_id).state == "succeeded"
    assert start_due_gc(database) is None
    change_rows(database, runs, runs.c.id == run_id, created_at=1)
    assert start_due_gc(database) is not None


def test_the_dispatcher_that_leads_has_garbage_collected(worker: InMemoryWorker) -> None:
    database, corpora = worker.database, CorpusRow.metadata.tables["corpora"]
    change_rows(database, corpora, corpora.c.pk > 0, created_at=1)
    leads: list[bool] = []
    chores = ChoreThread(choose_chores(database, MemoryTokenWriter(worker.store)), leads=lambda: bool(leads))
    chores.do_due()
    assert jobs(database, kind="gc") == []
    leads.append(True)
    assert "garbage" in chores.do_due()
    assert [job.state for job in jobs(database, kind="gc")] == ["pending"]
