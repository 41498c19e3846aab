"""What the cache loses is noticed, is not called covered any more, and is filled again, whoever dies meanwhile."""

from collections.abc import Callable, Iterator

import pytest
import structlog.testing

from pipeline.database import Database, now_ms
from pipeline.documents.corpora import get_corpus
from pipeline.documents.tables import LedgerRow
from pipeline.errors import Unavailable
from pipeline.jobs.claims import JOBS
from pipeline.jobs.installation import cache_epoch_at, get_fact
from pipeline.jobs.range_runs import settle_ranges
from pipeline.services import cache_epoch, refilling
from pipeline.services.cache_clearing import clear_entries
from pipeline.services.cache_epoch import CACHE_EPOCH, Verdict, renew_epoch, watch_cache
from pipeline.services.corpus_removal import drop_corpus
from pipeline.services.inspection import list_documents
from pipeline.services.range_runs import cancel
from pipeline.services.refilling import Debt, owe_everywhere, pursue_refills, pursue_verifications
from pipeline.token_cache import MemoryStore
from pipeline.token_cache.redis_cache import RedisTokenWriter
from tests.support.cache_world import RUNS, Server, World
from tests.support.valkey import ValkeyServer
from tests.support.write_path import (
    CORPUS,
    add_job,
    at_once,
    change_rows,
    ingestion,
    jobs,
    source,
    sources,
    taken,
)

LEDGER = LedgerRow.metadata.tables["ledger"]


@pytest.fixture
def world(database: Database) -> World:
    """Five served documents, and a marked cache."""
    made = World(database)
    assert made.watch() is Verdict.NEW
    made.put(5)
    assert made.watch() is Verdict.WHOLE
    assert made.coverage().share == 1.0
    return made


def test_a_first_mark_believes_the_ledger(database: Database) -> None:
    world = World(database)
    world.put(3)
    assert world.watch() is Verdict.NEW
    assert world.coverage().share == 1.0
    assert pursue_refills(database) == []


def test_only_a_loss_is_warned_about(database: Database) -> None:
    cache = Server(MemoryStore())
    with structlog.testing.capture_logs() as logs:
        watch_cache(database, cache)
        cache.flush()
        watch_cache(database, cache)
    looks = [(entry["verdict"], entry["log_level"]) for entry in logs if entry["event"] == "cache.not_whole"]
    assert looks == [("new", "info"), ("lost", "warning")]


def test_a_flushed_cache_is_not_covered_and_is_filled_again(world: World) -> None:
    world.cache.flush()
    assert world.watch() is Verdict.LOST
    assert (world.coverage().share, world.coverage().tokens) == (0.0, 0)
    with world.database.read() as connection:
        documents = list_documents(connection, get_corpus(connection, CORPUS), limit=10)
    assert not any(passage.cached for document in documents for passage in document.passages)
    assert all(passage.token_count for document in documents for passage in document.passages)
    assert world.watch() is Verdict.WHOLE
    assert len(world.settle()) == 1
    assert (world.coverage().share, world.entries()) == (1.0, 5)
    (run,) = world.runs("backfill")
    assert (run.state, run.totals["done"]) == ("succeeded", 5)


def test_every_corpus_is_filled_again_and_a_dropped_one_is_not(world: World) -> None:
    world.put(3, corpus="other", text="another")
    world.put(3, corpus="gone", text="a third")
    world.cache.flush()
    world.watch()
    drop_corpus(world.database, "gone")
    assert len(world.settle()) == 2
    assert {world.coverage(name).share for name in (CORPUS, "other")} == {1.0}
    assert world.entries() == 8


def test_a_cache_with_the_mark_of_an_earlier_epoch_is_a_lost_one(world: World) -> None:
    earlier = world.cache.epoch()
    assert earlier is not None
    world.cache.flush()
    world.watch()
    world.settle()
    world.cache.set_epoch(earlier)  # restored from an old file
    assert world.watch() is Verdict.LOST
    assert world.coverage().share == 0.0


def test_a_cache_that_does_not_answer_is_no_flushed_one(world: World) -> None:
    world.cache.store.available = False
    with pytest.raises(Unavailable):
        world.watch()
    assert world.coverage().share == 1.0
    world.cache.store.available = True
    assert world.watch() is Verdict.WHOLE


@pytest.mark.parametrize("step", ["set_epoch", "_record_epoch"])
def test_whoever_dies_between_the_two_marks_leaves_it_to_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def die(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("killed")

    world.cache.flush()
    with monkeypatch.context() as patch:
        patch.setattr(world.cache if step == "set_epoch" else cache_epoch, step, die)
        with pytest.raises(RuntimeError):
            world.watch()
    assert world.watch() is Verdict.LOST
    assert world.watch() is Verdict.WHOLE
    world.settle()
    assert (world.coverage().share, world.entries()) == (1.0, 5)


def test_many_who_notice_one_flush_end_with_equal_marks(world: World) -> None:
    for _turn in range(5):
        world.cache.flush()
        at_once(*[world.watch] * 4)
        while world.watch() is not Verdict.WHOLE:
            pass
        with world.database.read() as connection:
            assert get_fact(connection, CACHE_EPOCH) == world.cache.epoch()
    world.settle()
    assert (world.coverage().share, world.entries()) == (1.0, 5)


def test_a_flush_between_mark_and_record_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written after the new mark and before SQL knows of it is lost with the mark."""
    record = cache_epoch._record_epoch

    def flushed_first(*arguments: object, **options: bool) -> None:
        world.cache.flush()
        record(*arguments, **options)  # type: ignore[arg-type]  # handed on as they came

    world.cache.flush()
    with monkeypatch.context() as patch:
        patch.setattr(cache_epoch, "_record_epoch", flushed_first)
        world.watch()
    assert world.watch() is Verdict.LOST


def test_what_a_worker_wrote_before_the_flush_and_recorded_after_it_is_filled_again(world: World) -> None:
    """It took the clock, stored its entries, and was slow to tell SQL."""
    before = world.database.clock_ms()
    ingestion(world.database).put(CORPUS, [source("late", "a late one")])
    late = taken(world.database, next(job.pk for job in jobs(world.database, state="pending")), worker="late")
    world.cache.flush()
    world.watch()
    pursue_refills(world.database)
    world.work()
    assert world.owes(), "a job that began before the loss may yet write down what is lost"
    change_rows(world.database, JOBS, JOBS.c.pk == late.pk, lease_until=now_ms() - 1)
    from pipeline.jobs.claims import rescue_expired

    rescue_expired(world.database)
    world.work()
    change_rows(world.database, LEDGER, LEDGER.c.document_pk == _newest(world), written_at=before)
    assert world.coverage().share == pytest.approx(5 / 6)
    world.settle()
    assert (world.coverage().share, world.entries()) == (1.0, 6)


def _newest(world: World) -> int:
    with world.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT max(pk) FROM documents").scalar_one())


def test_a_flush_during_a_backfill_is_made_up_for_by_another(world: World) -> None:
    world.cache.flush()
    world.watch()
    (first,) = pursue_refills(world.database)
    world.worker.run_all()
    world.cache.flush()
    assert world.watch() is Verdict.LOST
    settle_ranges(world.database)
    again = world.settle()
    assert first not in again
    assert (world.coverage().share, world.entries()) == (1.0, 5)


def test_a_cancelled_backfill_is_not_begun_again(world: World) -> None:
    world.cache.flush()
    world.watch()
    (run_id,) = pursue_refills(world.database)
    cancel(world.database, run_id)
    assert pursue_refills(world.database) == []
    assert not world.owes()
    assert world.coverage().share == 0.0


def test_a_failed_backfill_is_tried_again_after_a_while(world: World) -> None:
    world.cache.flush()
    world.watch()
    (first,) = pursue_refills(world.database)
    world.work()
    change_rows(world.database, LEDGER, LEDGER.c.document_pk > 0, written_at=-1)
    change_rows(world.database, RUNS, RUNS.c.id == first, state="partial", finished_at=now_ms() - 300_000)
    assert pursue_refills(world.database) == []
    change_rows(world.database, RUNS, RUNS.c.id == first, finished_at=now_ms() - 601_000)
    (second,) = pursue_refills(world.database)
    assert second != first


def test_several_dispatchers_that_pursue_one_debt_start_one_backfill(world: World) -> None:
    world.cache.flush()
    world.watch()
    found = at_once(*[lambda: pursue_refills(world.database)] * 4)
    assert len({run_id for each in found if isinstance(each, list) for run_id in each}) == 1
    assert len(world.runs("backfill")) == 1


def test_what_was_written_shortly_before_a_restart_is_written_again(world: World) -> None:
    change_rows(world.database, LEDGER, LEDGER.c.document_pk < _newest(world), written_at=now_ms() - 3_600_000)
    world.cache.restart()
    assert world.watch() is Verdict.RESTARTED
    assert world.coverage().share == pytest.approx(4 / 5)
    world.settle()
    assert [run.totals["done"] for run in world.runs("backfill")] == [1]
    assert world.watch() is Verdict.WHOLE


def test_after_evictions_coverage_is_unknown_until_a_verification_has_repaired_it(world: World) -> None:
    world.cache.evict(2)
    assert world.watch() is Verdict.EVICTED
    assert world.coverage().share is None
    assert world.watch() is Verdict.WHOLE, "seen once"
    (run_id,) = pursue_verifications(world.database)
    assert pursue_verifications(world.database) == []
    world.work()
    (run,) = world.runs("verify")
    assert (run.id, run.state, run.totals["done"]) == (run_id, "succeeded", 2)
    assert (world.coverage().share, world.entries()) == (1.0, 5)


def test_an_evicted_mark_is_an_eviction_and_no_flush(world: World) -> None:
    world.cache.evict(1)
    world.cache.store.drop("ff:epoch")
    assert world.watch() is Verdict.EVICTED
    assert world.cache.epoch() is not None
    assert world.watch() is Verdict.WHOLE
    with world.database.read() as connection:
        assert cache_epoch_at(connection) == 0


def test_a_cache_that_is_too_small_is_not_verified_all_the_time(world: World) -> None:
    world.cache.evict(1)
    world.watch()
    pursue_verifications(world.database)
    world.cache.evict(1)
    world.watch()
    world.work()
    assert world.coverage().share is None
    assert pursue_verifications(world.database) == []
    change_rows(world.database, RUNS, RUNS.c.kind == "verify", finished_at=now_ms() - 601_000)
    assert len(pursue_verifications(world.database)) == 1


def test_a_restart_from_a_snapshot_makes_coverage_unknown(world: World) -> None:
    world.cache.restart(append_only=False)
    assert world.watch() is Verdict.EVICTED
    assert world.coverage().share is None


def test_a_new_epoch_makes_coverage_known(world: World) -> None:
    world.cache.evict(1)
    world.watch()
    world.cache.flush()
    assert world.watch() is Verdict.LOST
    assert world.coverage().share == 0.0
    world.settle()
    assert world.coverage().share == 1.0


def test_clearing_everything_fills_everything_again(world: World) -> None:
    world.put(2, corpus="other", text="another")
    world.cache.store.set("someone:else", b"1")
    cleared = clear_entries(world.database, world.cache, refill=True)
    assert (cleared.entries, len(cleared.runs)) == (7, 2)
    assert world.coverage().share == 0.0
    world.settle()
    assert {world.coverage(name).share for name in (CORPUS, "other")} == {1.0}
    assert world.cache.store.get("someone:else") == b"1"
    assert world.watch() is Verdict.WHOLE


def test_clearing_one_corpus_fills_that_one_again(world: World) -> None:
    world.put(2, corpus="other", text="another")
    cleared = clear_entries(world.database, world.cache, corpus="other", refill=True)
    assert (cleared.entries, len(cleared.runs)) == (2, 1)
    assert (world.coverage().share, world.coverage("other").share) == (1.0, 0.0)
    world.settle()
    assert world.coverage("other").share == 1.0
    assert world.entries() == 7


@pytest.mark.parametrize("corpus", [None, CORPUS])
def test_clearing_without_refilling_leaves_it_empty_and_says_so(world: World, corpus: str | None) -> None:
    cleared = clear_entries(world.database, world.cache, corpus=corpus, refill=False)
    assert (cleared.entries, cleared.runs) == (5, ())
    assert world.watch() is Verdict.WHOLE
    assert world.settle() == []
    assert (world.coverage().share, world.entries()) == (0.0, 0)


@pytest.mark.parametrize("refill", [True, False])
@pytest.mark.parametrize("corpus", [None, CORPUS])
def test_a_clearing_that_is_cut_short_is_filled_again(
    world: World, monkeypatch: pytest.MonkeyPatch, corpus: str | None, *, refill: bool
) -> None:
    def half(*_arguments: object) -> int:
        world.cache.store.drop(next(name for name in world.cache.store.names() if name != "ff:epoch"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.cache, "clear" if corpus is None else "delete", half)
        with pytest.raises(KeyboardInterrupt):
            clear_entries(world.database, world.cache, corpus=corpus, refill=refill)
    assert world.coverage().share == 0.0
    world.watch()
    world.settle()
    assert world.coverage().share == (1.0 if refill else 0.0)


def test_a_clearing_whose_cache_goes_away_is_filled_again_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_arguments: object) -> int:
        world.cache.store.available = False
        raise Unavailable("gone", service="cache")

    with monkeypatch.context() as patch:
        patch.setattr(world.cache, "clear", gone)
        with pytest.raises(Unavailable):
            clear_entries(world.database, world.cache, refill=False)
    world.cache.store.available = True
    assert world.watch() is Verdict.LOST
    world.settle()
    assert world.coverage().share == 1.0


def test_a_cache_that_is_away_is_not_cleared(world: World) -> None:
    world.cache.store.available = False
    with pytest.raises(Unavailable):
        clear_entries(world.database, world.cache, refill=True)
    world.cache.store.available = True
    assert world.watch() is Verdict.WHOLE
    assert world.coverage().share == 1.0


def test_a_debt_that_grows_while_it_is_settled_is_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    look = refilling._has_unfilled

    def grown(database: Database, corpus_pk: int) -> bool:
        with database.write() as connection:
            owe_everywhere(connection, Debt(since=0, before=database.clock_ms() + 1, refill=True))
        return look(database, corpus_pk) and False

    with world.database.write() as connection:
        owe_everywhere(connection, Debt(since=0, before=1, refill=True))
    with monkeypatch.context() as patch:
        patch.setattr(refilling, "_has_unfilled", grown)
        pursue_refills(world.database)
    assert world.owes()


@pytest.fixture
def writer(cache_server: ValkeyServer) -> Iterator[RedisTokenWriter]:
    made = RedisTokenWriter.connect(cache_server.url, timeout_s=1.0)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("disturb", "verdict"),
    [
        (lambda server: server.flush(), Verdict.LOST),
        (lambda server: (server.kill(), server.start()), Verdict.LOST),
        (lambda server: server.pause(), None),
        (lambda _server: None, Verdict.WHOLE),
    ],
)
def test_a_real_server_is_judged(
    database: Database,
    cache_server: ValkeyServer,
    writer: RedisTokenWriter,
    disturb: Callable[[ValkeyServer], object],
    verdict: Verdict | None,
) -> None:
    assert watch_cache(database, writer) is Verdict.NEW
    disturb(cache_server)
    if verdict is None:
        with pytest.raises(Unavailable):
            watch_cache(database, writer)
        cache_server.resume()
        verdict = Verdict.WHOLE
    assert watch_cache(database, writer) is verdict
    assert watch_cache(database, writer) is Verdict.WHOLE


def test_a_real_server_with_its_file_comes_back_as_restarted_and_a_full_one_evicts(sqlite_database: Database) -> None:
    options = ("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    with ValkeyServer(append_only=True, options=options) as server:
        writer = RedisTokenWriter.connect(server.url, timeout_s=2.0)
        assert watch_cache(sqlite_database, writer) is Verdict.NEW
        server.stop()
        server.start()
        assert watch_cache(sqlite_database, writer) is Verdict.RESTARTED
        with server.client() as client:
            for number in range(4000):
                client.set(f"filler:{number}", b"x" * 1000)
        assert watch_cache(sqlite_database, writer) is Verdict.EVICTED
        renew_epoch(sqlite_database, writer, refill=True)
        assert watch_cache(sqlite_database, writer) in (Verdict.WHOLE, Verdict.EVICTED)
        writer.close()


def test_documents_that_are_dead_do_not_have_a_corpus_filled_for_ever(world: World) -> None:
    world.cache.flush()
    world.watch()
    from pipeline.documents.tables import DocumentRow

    table = DocumentRow.metadata.tables["documents"]
    change_rows(
        world.database, table, table.c.pk == _newest(world), generation=2, state="dead", last_error="it cannot be cut"
    )
    world.settle()
    assert world.coverage().share == pytest.approx(4 / 5)
    assert not world.owes()


def test_jobs_of_other_corpora_hold_nothing_up(world: World) -> None:
    ingestion(world.database).put("other", sources(1))
    elsewhere = jobs(world.database, state="pending")[0]
    taken(world.database, elsewhere.pk)
    world.cache.flush()
    world.watch()
    pursue_refills(world.database)
    add_job(world.database, elsewhere.corpus_pk, bucket=99)
    world.work()
    change_rows(world.database, RUNS, RUNS.c.finished_at.is_not(None), finished_at=RUNS.c.finished_at - 10_000)
    pursue_refills(world.database)
    with world.database.read() as connection:
        owed = connection.exec_driver_sql("SELECT key FROM installation WHERE key LIKE 'refill:%%'").scalars().all()
    assert owed == [f"refill:{elsewhere.corpus_pk}"]
