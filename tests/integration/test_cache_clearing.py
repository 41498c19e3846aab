"""Dropping entries on purpose is recorded for every corpus that loses one, whoever dies or publishes meanwhile."""

from collections.abc import Callable

import pytest

from pipeline.database import Database
from pipeline.documents.corpora import filled_specs, get_corpus
from pipeline.documents.manifest import unpack_spans
from pipeline.documents.tables import LedgerRow
from pipeline.errors import Unavailable
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.tables import InstallationRow
from pipeline.services import cache_clearing, spec_lifecycle
from pipeline.services.cache_clearing import clear_entries, clear_shared_cache, clear_with_new_key
from pipeline.services.cache_epoch import Verdict
from pipeline.services.dropped_entries import end_abandoned_clearings, manifest_slices
from pipeline.services.range_jobs import RangeJobRunner
from pipeline.services.range_runs import start_range_run
from pipeline.token_cache import L1Cache, MemoryStore, MemoryTokenReader, MemoryTokenWriter, TokenCache
from tests.support.cache_world import World
from tests.support.write_path import CORPUS, change_rows, ingestion, report, source

OTHER = "other"
FACTS = InstallationRow.metadata.tables["installation"]
LEDGER = LedgerRow.metadata.tables["ledger"]


@pytest.fixture
def world(database: Database) -> World:
    """Two corpora of five passages each, three of them alike, whose entries are there."""
    made = World(database)
    made.watch()
    made.put(5)
    own = [source(f"own{n}", f"a text of its own {n}") for n in range(2)]
    ingestion(database).put(OTHER, [source(f"same{n}", f"some text {n}") for n in range(3)] + own)
    made.work()
    assert (made.coverage().share, made.coverage(OTHER).share, made.entries()) == (1.0, 1.0, 7)
    return made


def there(world: World, corpus: str) -> int:
    """How many served passages of a corpus have an entry in truth."""
    with world.database.read() as connection:
        found = get_corpus(connection, corpus)
        (spec,) = filled_specs(connection, found.pk)
    keys = [
        span.key
        for rows in manifest_slices(world.database, found.pk)
        for _, passages in rows
        for span in unpack_spans(passages)
    ]
    return sum(MemoryTokenWriter(world.cache.store).exists(spec.fingerprint, keys))


def assert_true(world: World, *, share: float) -> None:
    """What is said of both corpora is so, and one of them stands at that."""
    assert world.coverage(OTHER).share == pytest.approx(share)
    for corpus in (CORPUS, OTHER):
        assert world.coverage(corpus).covered == there(world, corpus)


def test_what_another_corpus_loses_by_a_clearing_is_recorded(world: World) -> None:
    cleared = clear_entries(world.database, world.cache, corpus=CORPUS, refill=False)
    assert (cleared.entries, cleared.runs) == (5, ())
    assert_true(world, share=2 / 5)
    assert world.settle() == []
    run_id = start_range_run(world.database, OTHER, kind="retokenize", options=RangeOptions(only_changed=True))
    assert run_id is not None
    world.work()
    assert report(world.database, run_id).totals["done"] == 3, "the first retokenize fills what is missing"
    assert world.coverage(OTHER).share == 1.0


def test_every_corpus_that_lost_an_entry_is_filled_again(world: World) -> None:
    cleared = clear_entries(world.database, world.cache, corpus=CORPUS, refill=True)
    assert_true(world, share=2 / 5)
    assert len(cleared.runs) == 2
    world.settle()
    assert_true(world, share=1.0)


def test_a_publication_in_flight_writes_its_entries_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wrote the entry of a text that both corpora serve, then that was dropped, then it told SQL."""
    place, index = type(world.worker.index).upsert, world.worker.index

    def cleared_first(*arguments: object) -> None:
        monkeypatch.undo()
        clear_entries(world.database, world.cache, corpus=CORPUS, refill=False)
        place(index, *arguments)  # type: ignore[arg-type]  # handed on as they came

    ingestion(world.database).put(OTHER, [source("late", "some text 4")])
    monkeypatch.setattr(index, "upsert", cleared_first)
    world.work()
    assert_true_of_other(world, covered=3, passages=6)


def test_a_range_job_in_flight_writes_its_entries_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RangeJobRunner._store

    def cleared_first(*arguments: object, **options: object) -> None:
        monkeypatch.undo()
        clear_entries(world.database, world.cache, corpus=CORPUS, refill=False)
        store(*arguments, **options)  # type: ignore[arg-type]  # handed on as they came

    start_range_run(world.database, OTHER, kind="retokenize")
    monkeypatch.setattr(RangeJobRunner, "_store", cleared_first)
    world.work()
    assert_true_of_other(world, covered=5, passages=5)


def assert_true_of_other(world: World, *, covered: int, passages: int) -> None:
    coverage = world.coverage(OTHER)
    assert (coverage.covered, coverage.passages, there(world, OTHER)) == (covered, passages, covered)


def test_what_is_published_while_entries_are_dropped_is_recorded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    drop = world.cache.delete

    def published_first(*arguments: object) -> int:
        monkeypatch.undo()
        ingestion(world.database).put(OTHER, [source("new", "some text 3")])
        world.work()
        return drop(*arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(world.cache, "delete", published_first)
    clear_entries(world.database, world.cache, corpus=CORPUS, refill=False)
    assert_true_of_other(world, covered=2, passages=6)


@pytest.mark.parametrize("step", ["bump", "owe", "_begin_again"])
@pytest.mark.parametrize("refill", [True, False])
def test_what_a_process_dropped_before_it_died_is_recorded_and_filled_again(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str, *, refill: bool
) -> None:
    """Everything after the step is left out, as if the process had been killed there: no handler runs."""
    begun: list[bool] = []

    def die(*_arguments: object, **_options: object) -> int:
        if step == "_begin_again" and not begun:
            begun.append(True)
            return begin(*_arguments)  # the first one is before anything is dropped
        raise RuntimeError("killed")

    begin: Callable[..., int] = cache_clearing._begin_again
    monkeypatch.setattr(cache_clearing, step, die)
    with pytest.raises(RuntimeError):
        clear_entries(world.database, world.cache, corpus=None if step == "_begin_again" else CORPUS, refill=refill)
    monkeypatch.undo()
    for corpus in (CORPUS, OTHER):
        assert world.coverage(corpus).covered <= there(world, corpus), "never more than there is"
    assert end_abandoned_clearings(world.database) == 0, "it may yet live"
    change_rows(world.database, FACTS, FACTS.c.key.startswith("clearing:"), value="[[1,2],1]")
    assert end_abandoned_clearings(world.database) == 1
    world.watch()
    world.settle()
    assert_true(world, share=1.0)
    assert end_abandoned_clearings(world.database) == 0


def test_a_clearing_that_ends_leaves_no_note(world: World) -> None:
    for corpus in (CORPUS, None):
        clear_entries(world.database, world.cache, corpus=corpus, refill=False)
    with world.database.read() as connection:
        assert (
            connection.exec_driver_sql("SELECT count(*) FROM installation WHERE key LIKE 'clearing:%%'").scalar() == 0
        )


@pytest.fixture
def read_side(world: World) -> TokenCache:
    """The read path's side of the same cache."""
    return TokenCache(MemoryTokenReader(world.worker.store), l1=L1Cache(1 << 20), write_back_ttl_s=60)


@pytest.mark.anyio
@pytest.mark.parametrize("refill", [True, False])
async def test_a_client_that_clears_the_cache_tells_sql(world: World, read_side: TokenCache, *, refill: bool) -> None:
    assert await clear_shared_cache(read_side, world.database, pattern=None, refill=refill) == 7
    assert_true(world, share=0.0)
    assert world.watch() is Verdict.WHOLE
    assert len(world.runs("backfill")) == (2 if refill else 0)
    world.settle()
    assert_true(world, share=1.0 if refill else 0.0)


@pytest.mark.anyio
async def test_a_pattern_drops_what_it_names_and_that_is_recorded(world: World, read_side: TokenCache) -> None:
    world.cache.store.set("someone:else", b"1")
    assert await clear_shared_cache(read_side, world.database, pattern="ff:nothing:*", refill=False) == 0
    assert_true(world, share=1.0)
    name = min(key for key in world.cache.store.names() if key.count(":") == 2)
    assert await clear_shared_cache(read_side, world.database, pattern=f"{name[:-1]}[{name[-1]}]", refill=False) == 1
    assert world.entries() - 1 == 6, "the foreign key stays"
    for corpus in (CORPUS, OTHER):
        assert world.coverage(corpus).covered == there(world, corpus)
    assert await clear_shared_cache(read_side, world.database, pattern="*", refill=True) == 6
    world.settle()
    assert_true(world, share=1.0)


@pytest.mark.anyio
async def test_another_cache_that_is_cleared_is_nothing_to_sql(world: World) -> None:
    elsewhere = TokenCache(MemoryTokenReader(MemoryStore()), l1=L1Cache(1 << 20), write_back_ttl_s=60)
    assert await clear_shared_cache(elsewhere, world.database, pattern=None, refill=True) == 0
    assert await clear_shared_cache(elsewhere, world.database, pattern="*", refill=True) == 0
    assert await clear_shared_cache(elsewhere, None, pattern=None, refill=True) == 0
    assert_true(world, share=1.0)


@pytest.mark.anyio
async def test_a_client_whose_cache_is_away_clears_nothing(world: World, read_side: TokenCache) -> None:
    world.worker.store.available = False
    with pytest.raises(Unavailable):
        await clear_shared_cache(read_side, world.database, pattern=None, refill=True)
    world.worker.store.available = True
    assert_true(world, share=1.0)


def test_a_new_key_takes_the_cache_over(world: World) -> None:
    changed = MemoryTokenWriter(world.worker.store, hmac_key=b"new")
    assert changed.key_mismatch() is not None
    cleared = clear_with_new_key(world.database, changed, refill=True)
    assert (cleared.entries, len(cleared.runs), changed.key_mismatch()) == (7, 2, None)
    assert MemoryTokenWriter(world.worker.store).key_mismatch() is not None
    assert world.watch() is Verdict.WHOLE
    assert_true(world, share=0.0)


def test_a_spec_that_is_built_again_believes_nothing_that_a_cut_drop_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between drop and build garbage collection may have let its entries go."""
    second = "cl100k_base/plain"
    spec_lifecycle.build(world.database, second, OTHER)
    world.work()
    monkeypatch.setattr(spec_lifecycle, "_clear_ledger", lambda *_arguments: 0)
    spec_lifecycle.drop(world.database, second, corpora=[OTHER])
    run_id = spec_lifecycle.build(world.database, second, OTHER)
    world.work()
    assert report(world.database, run_id).totals["done"] == 5
