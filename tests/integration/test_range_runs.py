"""Runs over a corpus on both databases: what they write and count, and what stops, kills or races with them."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, delete, func, select

from pipeline.database import Database, now_ms
from pipeline.documents.ranges import ServedDocument, load_served
from pipeline.documents.tables import CorpusRow, DocumentRow, LedgerRow
from pipeline.errors import Conflict, InvalidInput, NotFound, OutOfTime, StaleFence, Unavailable
from pipeline.jobs import range_runs
from pipeline.jobs.claims import JOBS
from pipeline.jobs.installation import CACHE_EPOCH_AT, set_fact
from pipeline.jobs.range_runs import Nominal, RangeOptions, plan_all, settle_ranges
from pipeline.jobs.run_reports import RunReport, list_errors
from pipeline.jobs.tables import JobRow, RangeRunRow, RunItemRow, RunRow, ScheduleRow
from pipeline.services import comparing, range_jobs
from pipeline.services.comparing import Recomputed
from pipeline.services.inspection import list_coverage
from pipeline.services.job_runner import JobRunner
from pipeline.services.range_runs import cancel, pause, resume, retry, start_range_run
from pipeline.token_cache import PassageEntry
from pipeline.token_cache.memory import MemoryTokenWriter
from pipeline.tokenizers import load_spec
from tests.support.write_path import (
    CORPUS,
    InMemoryWorker,
    at_once,
    change_rows,
    document,
    expire_lease,
    ingestion,
    job,
    jobs,
    report,
    source,
    take,
    taken,
)

SPEC = "o200k_base/plain"
LEDGER = LedgerRow.metadata.tables["ledger"]
FINGERPRINT = load_spec(SPEC).fingerprint


@pytest.fixture
def worker(database: Database) -> InMemoryWorker:
    """A worker beside a corpus of twelve served documents."""
    made = InMemoryWorker(database)
    ingestion(database).put(CORPUS, [source(f"d{n:02}", f"text number {n} of twelve") for n in range(12)])
    made.run_all()
    return made


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ranges of two documents, so that twelve are six jobs."""
    monkeypatch.setattr(range_runs, "DOCUMENTS_PER_RANGE", 2)
    monkeypatch.setattr(range_runs, "QUICK_DOCUMENTS_PER_RANGE", 2)


def start(database: Database, *, kind: str = "retokenize", spec: str | None = None, **options: object) -> str:
    run_id = start_range_run(database, CORPUS, kind=kind, spec=spec, options=RangeOptions(**options))  # type: ignore[arg-type]  # fields by name
    assert run_id is not None
    return run_id


def run(worker: InMemoryWorker, **options: object) -> RunReport:
    """Start a run and work it off."""
    run_id = start(worker.database, **options)  # type: ignore[arg-type]  # passed on
    worker.run_all()
    return report(worker.database, run_id)


def summed(totals: dict[str, int]) -> bool:
    return totals["documents"] == sum(count for name, count in totals.items() if name != "documents")


def entry_key(database: Database, document_id: str) -> bytes:
    with database.read() as connection:
        (served,) = load_served(connection, [document(database, document_id).pk])
    return served.spans[0].key


def coverage(database: Database) -> float:
    with database.read() as connection:
        (found,) = list_coverage(connection)
    assert found.share is not None
    return found.share


def errors(database: Database, run_id: str) -> dict[str, str]:
    with database.read() as connection:
        return {error.document_id: error.error for error in list_errors(connection, run_id)}


def cache_of(worker: InMemoryWorker) -> MemoryTokenWriter:
    return MemoryTokenWriter(worker.store)


def test_a_corpus_as_it_should_be_is_unchanged(worker: InMemoryWorker) -> None:
    before = {name: worker.store.get(name) for name in worker.store.names()}
    ended = run(worker)
    assert (ended.state, ended.totals["unchanged"], ended.totals["documents"]) == ("succeeded", 12, 12)
    assert ended.differences == 0
    assert ended.tokens > 0
    assert {name: worker.store.get(name) for name in worker.store.names()} == before


def test_what_differs_is_reported_and_mended(worker: InMemoryWorker) -> None:
    database, cache = worker.database, cache_of(worker)
    cache.delete(FINGERPRINT, [entry_key(database, "d03")])
    (other,) = cache.read(FINGERPRINT, [entry_key(database, "d05")])
    assert not isinstance(other, str)
    cache.write(FINGERPRINT, [(entry_key(database, "d04"), other)])
    name = next(name for name in worker.store.names() if entry_key(database, "d06").hex() in name)
    worker.store.set(name, b"garbage")
    ended = run(worker)
    assert (ended.state, ended.totals["done"], ended.totals["unchanged"], ended.differences) == ("succeeded", 3, 9, 3)
    assert errors(database, ended.id) == {
        "d03": f"{SPEC}: 1 of 1 entries are missing",
        "d04": f"{SPEC}: 1 of 1 entries hold other ids",
        "d06": f"{SPEC}: 1 of 1 entries cannot be read",
    }
    again = run(worker)
    assert (again.totals["unchanged"], again.differences) == (12, 0)


def test_a_dry_run_reports_and_writes_nothing(worker: InMemoryWorker) -> None:
    cache_of(worker).delete(FINGERPRINT, [entry_key(worker.database, "d03")])
    ended = run(worker, dry_run=True)
    assert (ended.totals["done"], ended.differences) == (1, 1)
    assert cache_of(worker).exists(FINGERPRINT, [entry_key(worker.database, "d03")]) == [False]


def test_only_changed_fills_what_the_ledger_does_not_know_and_reads_nothing_else(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.database
    pk = document(database, "d07").pk
    cache_of(worker).delete(FINGERPRINT, [entry_key(database, "d07")])
    with database.write() as connection:
        connection.execute(delete(LedgerRow).where(LedgerRow.document_pk == pk))
    read: list[int] = []
    load = load_served

    def watched(connection: Connection, pks: Sequence[int]) -> list[ServedDocument]:
        read.extend(pks)
        return load(connection, pks)

    monkeypatch.setattr(range_jobs, "load_served", watched)
    assert coverage(database) < 1
    ended = run(worker, only_changed=True)
    assert (ended.state, ended.totals["done"], ended.totals["unchanged"]) == ("succeeded", 1, 11)
    assert read == [pk]
    assert coverage(database) == 1
    assert cache_of(worker).exists(FINGERPRINT, [entry_key(database, "d07")]) == [True]


def test_entries_of_an_earlier_epoch_are_filled_again_although_the_ledger_has_them(worker: InMemoryWorker) -> None:
    database = worker.database
    cache_of(worker).clear()
    with database.write() as connection:
        set_fact(connection, CACHE_EPOCH_AT, str(database.clock_ms() + 1))
    filled = start(database, kind="backfill")
    with database.write() as connection:  # a moment later: what is written from now on counts
        set_fact(connection, CACHE_EPOCH_AT, str(database.clock_ms()))
    change_rows(database, LEDGER, LEDGER.c.written_at > 0, written_at=1)
    worker.run_all()
    assert report(database, filled).totals["done"] == 12
    keys = [entry_key(database, f"d{n:02}") for n in range(12)]
    assert cache_of(worker).exists(FINGERPRINT, keys) == [True] * 12
    assert run(worker, kind="backfill").totals["unchanged"] == 12


@pytest.mark.usefixtures("small_ranges")
def test_documents_that_come_later_are_not_in_the_run(worker: InMemoryWorker) -> None:
    run_id = start(worker.database)
    ingestion(worker.database).put(CORPUS, [source("late")])
    worker.run_all()
    assert report(worker.database, run_id).totals["documents"] == 12


@pytest.mark.usefixtures("small_ranges")
def test_jobs_are_made_a_few_at_a_time(worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_runs, "OPEN_JOBS", 2)
    run_id = start(worker.database)
    for expected in (2, 4, 6, 8, 10):
        assert len(jobs(worker.database, run_id=run_id, state="pending")) == 2
        assert plan_all(worker.database) == 0
        worker.run(jobs(worker.database, run_id=run_id, state="pending")[0].pk)
        assert report(worker.database, run_id).totals["unchanged"] == expected
    worker.run_all()
    ended = report(worker.database, run_id)
    assert (ended.state, ended.totals["unchanged"]) == ("succeeded", 12)
    assert jobs(worker.database, run_id=run_id) == []


@pytest.mark.usefixtures("small_ranges")
def test_a_paused_run_keeps_what_it_did_and_goes_on(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = start(database)
    first, second, *_ = jobs(database, run_id=run_id)
    assert worker.run(first.pk) == "succeeded"
    assert pause(database, run_id).state == "paused"
    assert take(database, second.pk) is None
    assert pause(database, run_id).state == "paused"
    waiting = report(database, run_id)
    assert (waiting.totals["unchanged"], waiting.totals["pending"], summed(dict(waiting.totals))) == (2, 10, True)
    assert resume(database, run_id).state == "running"
    worker.run_all()
    assert report(database, run_id).state == "succeeded"


def test_a_worker_notices_a_pause_between_slices(worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    database = worker.database
    worker.limits = type(worker.limits)(slice_documents=1)  # four documents of a range job
    run_id = start(database)
    write = MemoryTokenWriter.write

    def pausing(self: MemoryTokenWriter, fingerprint: str, pairs: Iterable[PassageEntry]) -> int:
        pause(database, run_id)
        return write(self, fingerprint, pairs)

    monkeypatch.setattr(MemoryTokenWriter, "write", pausing)
    (only,) = jobs(database, run_id=run_id)
    assert worker.run(only.pk) == "yielded"
    stopped = report(database, run_id)
    assert (stopped.state, stopped.totals["unchanged"], stopped.totals["pending"]) == ("paused", 4, 8)
    monkeypatch.undo()
    resume(database, run_id)
    worker.run_all()
    assert report(database, run_id).totals["unchanged"] == 12


@pytest.mark.usefixtures("small_ranges")
def test_a_cancelled_run_ends_at_once_and_its_workers_are_fenced(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = start(database)
    first, second, *_ = jobs(database, run_id=run_id)
    worker.run(first.pk)
    held = taken(database, second.pk, worker="slow")
    ended = cancel(database, run_id)
    assert (ended.state, ended.totals["unchanged"], ended.totals["cancelled"]) == ("cancelled", 2, 10)
    assert summed(dict(ended.totals))
    assert jobs(database, run_id=run_id) == []
    with pytest.raises(StaleFence):
        range_jobs.RangeJobRunner(worker.resources, held).run()
    assert cancel(database, run_id).state == "cancelled"
    assert report(database, run_id) == ended


@pytest.mark.parametrize("act", [pause, resume, cancel])
def test_accepted_writes_are_neither_paused_nor_cancelled(
    database: Database, act: Callable[[Database, str], RunReport]
) -> None:
    run_id = ingestion(database).put(CORPUS, [source("a")]).run_id
    with pytest.raises(Conflict, match="accepted writes cannot be"):
        act(database, run_id)
    assert report(database, run_id).state == "pending"


def test_a_run_that_has_ended_stays_ended(worker: InMemoryWorker) -> None:
    ended = run(worker)
    for act in (pause, resume, cancel, retry):
        with pytest.raises(Conflict):
            act(worker.database, ended.id)
    assert report(worker.database, ended.id) == ended


def test_impatient_starts_are_one_run(worker: InMemoryWorker) -> None:
    database = worker.database
    started = at_once(*[partial(start, database) for _ in range(4)])
    assert len(set(started)) == 1
    assert start(database, only_changed=True) not in started


def test_a_nominal_time_has_one_run_whoever_asks(worker: InMemoryWorker) -> None:
    database = worker.database
    with database.write() as connection:
        corpus_pk = connection.execute(select(CorpusRow.pk)).scalar_one()
        row = {"corpus_pk": corpus_pk, "kind": "retokenize", "cron": "0 2 * * *", "timezone": "UTC", "created_at": 0}
        key = connection.execute(ScheduleRow.metadata.tables["schedules"].insert().values(row)).inserted_primary_key
        assert key is not None
    nominal = Nominal(schedule_pk=key[0], at=1000)
    ask = partial(start_range_run, database, CORPUS, kind="retokenize", nominal=nominal)
    made = [run_id for run_id in at_once(ask, ask, ask) if run_id is not None]
    assert len(made) == 1
    later = partial(start_range_run, database, CORPUS, kind="retokenize", nominal=Nominal(key[0], at=2000))
    assert later() is None, "last night's run goes on"
    worker.run_all()
    assert ask() is None
    assert later() is not None


def test_a_run_over_nothing_has_succeeded(database: Database) -> None:
    worker = InMemoryWorker(database)
    ingestion(database).put(CORPUS, [source("a")])
    ended = run(worker)
    assert ended.state == "succeeded"


def test_a_worker_killed_after_writing_entries_repeats_its_slice_and_counts_it_once(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.database
    run_id = start(database)
    (only,) = jobs(database, run_id=run_id)

    def dies(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt  # as SIGKILL: nothing is cleaned up in SQL

    monkeypatch.setattr(range_jobs.RangeJobRunner, "_store", dies)
    with pytest.raises(KeyboardInterrupt):
        worker.run(only.pk)
    monkeypatch.undo()
    expire_lease(database, only.pk)
    assert worker.run(only.pk) == "succeeded"
    assert report(database, run_id).totals["unchanged"] == 12


def test_a_document_that_changes_meanwhile_is_superseded(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.database
    ingestion(database).put(CORPUS, [source("d01", "changed before")])
    run_id = start(database)
    write = MemoryTokenWriter.write

    def changing(self: MemoryTokenWriter, fingerprint: str, pairs: Iterable[PassageEntry]) -> int:
        ingestion(database).put(CORPUS, [source("d02", "changed in the middle")])
        return write(self, fingerprint, pairs)

    monkeypatch.setattr(MemoryTokenWriter, "write", changing)
    (only,) = jobs(database, run_id=run_id)
    worker.run(only.pk)
    monkeypatch.undo()
    ended = report(database, run_id)
    assert (ended.totals["superseded"], ended.totals["unchanged"]) == (2, 10)


def test_a_document_that_kills_every_worker_is_passed_over(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = start(database)
    (only,) = jobs(database, run_id=run_id)
    pk = document(database, "d00").pk
    change_rows(database, JOBS, JOBS.c.pk == only.pk, breadcrumb=pk, deliveries=worker.limits.max_deaths)
    worker.run_all()
    ended = report(database, run_id)
    assert (ended.state, ended.totals["dead"], ended.totals["unchanged"]) == ("partial", 1, 11)
    assert "the worker died 5 times" in errors(database, run_id)["d00"]
    assert document(database, "d00").state == "served"


@pytest.mark.parametrize(
    ("error", "outcomes", "sentence"),
    [
        (type("PanicException", (BaseException,), {})(), ["succeeded"], "a library panicked"),
        (OutOfTime(50), ["failed", "succeeded"], "it took longer than 50 s"),
    ],
)
def test_a_document_at_which_a_library_panics_or_hangs_is_passed_over(
    worker: InMemoryWorker,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    outcomes: list[str],
    sentence: str,
) -> None:
    database = worker.database

    def recompute(served: Sequence[ServedDocument], **options: Any) -> list[Recomputed]:
        if "d05" in [document.id for document in served]:
            raise error
        return comparing.recompute(served, **options)

    monkeypatch.setattr(range_jobs, "recompute", recompute)
    run_id = start(database)
    (only,) = jobs(database, run_id=run_id)
    assert worker.run(only.pk) == outcomes[0]
    change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=now_ms())
    assert worker.run_all() == outcomes[1:]
    ended = report(database, run_id)
    assert (ended.state, ended.totals["dead"], ended.totals["unchanged"]) == ("partial", 1, 11)
    assert errors(database, run_id) == {"d05": sentence}


def test_one_death_blames_nobody(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = start(database)
    (only,) = jobs(database, run_id=run_id)
    change_rows(database, JOBS, JOBS.c.pk == only.pk, breadcrumb=document(database, "d00").pk, deliveries=1)
    worker.run_all()
    assert report(database, run_id).totals["unchanged"] == 12


def test_a_job_that_fails_for_good_fails_its_run_with_the_cause(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = start(database)
    corpora = CorpusRow.metadata.tables["corpora"]
    change_rows(database, corpora, corpora.c.pk > 0, splitter="unreadable")
    (only,) = jobs(database, run_id=run_id)
    for _ in range(range_jobs.FINAL_ATTEMPTS):
        change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=0)
        worker.run(only.pk)
    ended = report(database, run_id)
    assert ended.state == "failed"
    assert "unknown splitter" in (ended.error or "")


def test_a_service_that_does_not_answer_costs_time_only(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.database
    run_id = start(database)
    (only,) = jobs(database, run_id=run_id)

    def away(*_arguments: object) -> int:
        raise Unavailable("the token cache does not answer", service="cache")

    monkeypatch.setattr(MemoryTokenWriter, "read", away)
    for _ in range(range_jobs.FINAL_ATTEMPTS + 2):
        change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=0)
        assert worker.run(only.pk) == "unavailable"
    monkeypatch.undo()
    change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=0)
    worker.run_all()
    assert report(database, run_id).state == "succeeded"


def test_outages_do_not_count_towards_giving_up(worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    database = worker.database
    run_id = start(database)
    (only,) = jobs(database, run_id=run_id)
    errors: list[Exception] = [Unavailable("away", service="cache")] * range_jobs.FINAL_ATTEMPTS + [OSError("once")]

    def fail(*_arguments: object) -> int:
        raise errors.pop(0)

    monkeypatch.setattr(MemoryTokenWriter, "read", fail)
    outcomes = []
    while errors:
        change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=0)
        outcomes.append(worker.run(only.pk))
    assert outcomes == ["unavailable"] * range_jobs.FINAL_ATTEMPTS + ["failed"]
    monkeypatch.undo()
    change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=0)
    worker.run_all()
    assert report(database, run_id).state == "succeeded"


def test_a_store_that_is_away_is_asked_less_and_less_often(
    worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = worker.database
    start(database)
    (only,) = jobs(database, state="pending")
    runner = JobRunner(worker.resources, worker="w", lease_s=30, heartbeat_s=10, limits=worker.limits)

    def away(*_arguments: object) -> int:
        raise Unavailable("away", service="cache")

    monkeypatch.setattr(MemoryTokenWriter, "read", away)
    for _ in range(6):
        change_rows(database, JOBS, JOBS.c.pk == only.pk, available_at=0)
        assert runner.run(only.pk, delivery_id="m", redelivered=False) == "unavailable"
    assert 4_000 < job(database, only.pk).available_at - database.clock_ms() <= 10_000


def test_verify_finds_lost_points_and_repair_publishes_them_anew(worker: InMemoryWorker) -> None:
    database = worker.database
    assert run(worker, kind="verify").differences == 0
    collection = next(iter(database_collections(database)))
    victim = next(state for state in worker.index.scroll(collection) if state.document_id == "d08")
    worker.index._collections[collection].alive.pop(victim.point_id)  # the twin has no other way to lose a point
    found = run(worker, kind="verify")
    assert errors(database, found.id) == {"d08": "1 points are missing, buried or of another generation"}
    assert victim.point_id not in worker.index.states(collection, [victim.point_id])
    run(worker, kind="verify", repair=True)
    worker.run_all()
    assert worker.index.states(collection, [victim.point_id])[victim.point_id].generation == 2
    assert document(database, "d08").served_generation == 2
    assert run(worker, kind="verify").differences == 0


def test_a_lost_collection_is_filled_again(worker: InMemoryWorker) -> None:
    database = worker.database
    (collection,) = database_collections(database)
    worker.index.drop_collection(collection)
    assert run(worker, kind="verify").differences == 12
    assert run(worker, kind="verify", repair=True).state == "succeeded"
    worker.run_all()
    assert run(worker, kind="verify").differences == 0
    assert worker.index.count(collection) == 12


def database_collections(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.execute(select(CorpusRow.collection)).scalars())


def test_a_sample_looks_at_about_so_many(worker: InMemoryWorker) -> None:
    ended = run(worker, kind="verify", sample=4)
    assert ended.totals["documents"] == 4


def test_dead_documents_of_a_run_are_tried_again(database: Database) -> None:
    worker = InMemoryWorker(database)
    run_id = ingestion(database).put(CORPUS, [source("good"), source("bad")]).run_id
    bad = document(database, "bad")
    documents = DocumentRow.metadata.tables["documents"]
    items = RunItemRow.metadata.tables["run_items"]
    change_rows(database, documents, documents.c.pk == bad.pk, state="dead", last_error="no luck", attempts=3)
    change_rows(database, items, items.c.document_pk == bad.pk, outcome="dead", error="no luck", stage="embed")
    worker.run_all()
    assert report(database, run_id).state == "partial"
    assert retry(database, run_id).state == "running"
    worker.run_all()
    ended = report(database, run_id)
    assert (ended.state, ended.totals["done"], ended.totals["dead"]) == ("succeeded", 2, 0)
    assert document(database, "bad").state == "served"


def test_a_dead_document_that_was_changed_since_is_not_tried_again(database: Database) -> None:
    worker = InMemoryWorker(database)
    run_id = ingestion(database).put(CORPUS, [source("bad")]).run_id
    bad = document(database, "bad")
    documents = DocumentRow.metadata.tables["documents"]
    items = RunItemRow.metadata.tables["run_items"]
    change_rows(database, documents, documents.c.pk == bad.pk, state="dead", last_error="no luck")
    change_rows(database, items, items.c.document_pk == bad.pk, outcome="dead", error="no luck", stage="embed")
    worker.run_all()
    ingestion(database).put(CORPUS, [source("bad", "better")])
    settle_ranges(database)
    with pytest.raises(Conflict):
        retry(database, run_id)


@pytest.mark.parametrize(
    ("kind", "options"),
    [("retokenize", {"repair": True}), ("verify", {"dry_run": True}), ("backfill", {"sample": 1}), ("nightly", {})],
)
def test_options_that_do_not_go_together_are_refused(
    worker: InMemoryWorker, kind: str, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        start_range_run(worker.database, CORPUS, kind=kind, options=RangeOptions(**options))
    with worker.database.read() as connection:
        assert connection.execute(select(func.count()).where(JobRow.run_id.is_not(None))).scalar_one() == 0


def test_unknown_corpora_and_specs_are_not_found(worker: InMemoryWorker) -> None:
    with pytest.raises(NotFound):
        start_range_run(worker.database, "nowhere", kind="retokenize")
    with pytest.raises(NotFound):
        start(worker.database, spec="cl100k_base/plain")


@pytest.mark.usefixtures("small_ranges")
def test_the_estimate_leaves_pauses_out(worker: InMemoryWorker) -> None:
    database = worker.database
    run_id = start(database)
    worker.run(jobs(database, run_id=run_id)[0].pk)
    runs = RunRow.metadata.tables["runs"]
    ranges = RangeRunRow.metadata.tables["range_runs"]
    now = database.clock_ms()
    change_rows(database, runs, runs.c.id == run_id, started_at=now - 100_000, state="paused")
    change_rows(database, ranges, ranges.c.run_id == run_id, paused_ms=40_000, paused_at=now - 50_000)
    estimate = report(database, run_id).eta_s
    assert estimate is not None
    assert math.isclose(estimate, 10 / 2 * 10.0, rel_tol=0.05)


def test_a_job_lets_others_have_a_turn(worker: InMemoryWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(range_jobs, "TURN_S", -1.0)
    run_id = start(worker.database)
    (only,) = jobs(worker.database, run_id=run_id)
    assert worker.run(only.pk) == "yielded"
    waiting = job(worker.database, only.pk)
    assert (waiting.state, waiting.attempts, waiting.deliveries, waiting.published_at) == ("pending", 0, 0, None)
