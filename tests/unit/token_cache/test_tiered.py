"""The read path's cache: where entries come from, what is counted, what is kept and written back."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from prometheus_client import REGISTRY

from pipeline.token_cache import (
    Circuit,
    Entry,
    L1Cache,
    MemoryStore,
    MemoryTokenReader,
    MemoryTokenWriter,
    MissReason,
    TokenCache,
    entry_key,
)
from tests.support.clocks import ManualClock
from tests.support.entries import FINGERPRINT, OTHER_FINGERPRINT, keys_of, numbered_pairs

pytestmark = pytest.mark.anyio

PAIRS = numbered_pairs(4)
KEYS = keys_of(PAIRS)
ENTRIES = tuple(entry for _, entry in PAIRS)


def cache_over(store: MemoryStore, *, l1_bytes: int = 1 << 20, clock: ManualClock | None = None) -> TokenCache:
    circuit = Circuit(open_s=1.0, clock=clock or ManualClock())
    return TokenCache(MemoryTokenReader(store), l1=L1Cache(l1_bytes), write_back_ttl_s=300, circuit=circuit)


class Tokenizer:
    """Computes entries from the sample and notes what it was asked."""

    def __init__(self, *, unknown: Sequence[bytes] = ()) -> None:
        self.asked: list[bytes] = []
        self._known = {key: entry for key, entry in PAIRS if key not in unknown}

    async def __call__(self, keys: Sequence[bytes]) -> Mapping[bytes, Entry]:
        self.asked += keys
        await asyncio.sleep(0)
        return {key: self._known[key] for key in keys if key in self._known}


async def test_entries_come_from_redis_first_and_from_memory_afterwards() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS)
    cache = cache_over(store)
    first = await cache.lookup(FINGERPRINT, KEYS)
    assert (first.entries, first.sources, first.all_hit) == (ENTRIES, ("l2",) * 4, True)
    store.available = False
    again = await cache.lookup(FINGERPRINT, [*KEYS, KEYS[0]])
    assert (again.entries, again.sources) == ((*ENTRIES, ENTRIES[0]), ("l1",) * 5)


async def test_a_lookup_says_per_passage_what_is_missing_and_why() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS[:2])
    store.set(entry_key(FINGERPRINT, KEYS[1]), b"{}")
    lookup = await cache_over(store).lookup(FINGERPRINT, [*KEYS[:3], KEYS[2]])
    assert lookup.entries == (ENTRIES[0], None, None, None)
    assert lookup.sources == ("l2", "miss", "miss", "miss")
    assert lookup.reasons == (None, MissReason.CORRUPT, MissReason.ABSENT, MissReason.ABSENT)
    assert lookup.missing == [KEYS[1], KEYS[2]]
    assert not lookup.all_hit


async def test_an_entry_of_another_spec_is_a_miss() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(OTHER_FINGERPRINT, PAIRS)
    cache = cache_over(store)
    await cache.lookup(OTHER_FINGERPRINT, KEYS)
    assert (await cache.lookup(FINGERPRINT, KEYS)).entries == (None,) * 4


async def test_no_passages_are_all_found_without_a_call() -> None:
    store = MemoryStore()
    store.available = False
    lookup = await cache_over(store).lookup(FINGERPRINT, [])
    assert (lookup.entries, lookup.errors, lookup.all_hit) == ((), 0, True)


async def test_resolving_computes_only_what_is_missing_and_writes_it_back_with_a_life_time() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS[:1])
    cache, tokenizer = cache_over(store), Tokenizer()
    resolved = await cache.resolve(await cache.lookup(FINGERPRINT, KEYS), tokenizer)
    assert resolved.entries == ENTRIES
    assert resolved.sources == ("l2", "miss", "miss", "miss")
    assert tokenizer.asked == KEYS[1:]
    await cache.drain()
    assert MemoryTokenWriter(store).read(FINGERPRINT, KEYS) == list(ENTRIES)
    assert store.ttl_s(entry_key(FINGERPRINT, KEYS[0])) is None
    assert store.ttl_s(entry_key(FINGERPRINT, KEYS[1])) == pytest.approx(300, abs=5)
    assert (await cache.lookup(FINGERPRINT, KEYS)).sources == ("l1",) * 4


async def test_a_passage_that_cannot_be_computed_stays_missing() -> None:
    cache = cache_over(MemoryStore())
    resolved = await cache.resolve(await cache.lookup(FINGERPRINT, KEYS), Tokenizer(unknown=KEYS[:1]))
    assert resolved.entries == (None, *ENTRIES[1:])
    assert resolved.missing == KEYS[:1]
    await cache.close()


async def test_concurrent_queries_tokenize_a_missing_passage_once() -> None:
    cache, tokenizer = cache_over(MemoryStore()), Tokenizer()

    async def query() -> tuple[Entry | None, ...]:
        return (await cache.resolve(await cache.lookup(FINGERPRINT, KEYS), tokenizer)).entries

    assert await asyncio.gather(*(query() for _ in range(20))) == [ENTRIES] * 20
    assert sorted(tokenizer.asked) == sorted(KEYS)
    await cache.close()


async def test_corrupt_entries_are_overwritten_and_keep_living_as_long_as_a_workers() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS)
    store.set(entry_key(FINGERPRINT, KEYS[0]), b"damaged")
    cache = cache_over(store, l1_bytes=0)
    await cache.resolve(await cache.lookup(FINGERPRINT, KEYS), Tokenizer())
    await cache.drain()
    assert (await cache.lookup(FINGERPRINT, KEYS)).sources == ("l2",) * 4
    assert store.ttl_s(entry_key(FINGERPRINT, KEYS[0])) is None


async def test_a_failing_cache_is_asked_once_a_period_and_counted_once() -> None:
    store, clock = MemoryStore(), ManualClock()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS)
    cache = cache_over(store, clock=clock)
    store.available = False
    lookups = [await cache.lookup(FINGERPRINT, KEYS) for _ in range(3)]
    assert [lookup.errors for lookup in lookups] == [1, 0, 0]
    assert {reason for lookup in lookups for reason in lookup.reasons} == {MissReason.UNAVAILABLE}
    store.available = True
    assert (await cache.lookup(FINGERPRINT, KEYS)).missing == KEYS
    clock.advance(1.0)
    assert (await cache.lookup(FINGERPRINT, KEYS)).sources == ("l2",) * 4
    assert cache.stats().errors == 1


async def test_writing_back_to_a_failing_cache_keeps_the_entry_in_memory_and_raises_nothing() -> None:
    store = MemoryStore()
    store.available = False
    cache = cache_over(store)
    await cache.write_back(FINGERPRINT, PAIRS)
    assert (await cache.lookup(FINGERPRINT, KEYS)).sources == ("l1",) * 4
    assert cache.stats().errors == 1


async def test_clearing_drops_both_tiers() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS)
    cache = cache_over(store)
    await cache.lookup(FINGERPRINT, KEYS)
    assert await cache.clear() == 4
    assert (await cache.lookup(FINGERPRINT, KEYS)).missing == KEYS


async def test_statistics_count_passages_and_start_anew_after_a_reset() -> None:
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS[:3])
    cache = cache_over(store)
    await cache.resolve(await cache.lookup(FINGERPRINT, KEYS), Tokenizer())
    await cache.lookup(FINGERPRINT, KEYS)
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.hit_rate) == (7, 1, 87.5)
    assert stats.misses_by_reason[MissReason.ABSENT] == 1
    assert stats.avg_miss_latency_ms > 0
    assert stats.avg_hit_latency_ms > 0
    assert (stats.l1_entries, stats.l1_bytes > 0) == (4, True)
    cache.reset_stats()
    assert (cache.stats().hits, cache.stats().hit_rate, cache.stats().avg_hit_latency_ms) == (0, 0, 0)
    await cache.close()


async def test_metrics_follow_the_counts() -> None:
    def sample(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    before = [sample("token_cache_hits_total"), sample("token_cache_misses_total", reason="absent")]
    store = MemoryStore()
    MemoryTokenWriter(store).write(FINGERPRINT, PAIRS[:3])
    await cache_over(store).lookup(FINGERPRINT, KEYS)
    after = [sample("token_cache_hits_total"), sample("token_cache_misses_total", reason="absent")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [3, 1]
    assert sample("token_cache_hit_rate") == 75
