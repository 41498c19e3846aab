"""The token cache over a real Valkey that hangs, dies, is flushed, refuses writes, or is used by many tasks at once."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis
import redis.asyncio

from pipeline.errors import OutOfTime, Unavailable
from pipeline.token_cache import (
    Circuit,
    L1Cache,
    MissReason,
    PassageEntry,
    RedisTokenReader,
    RedisTokenWriter,
    TokenCache,
    TokenWriter,
    entry_key,
)
from tests.support.clocks import ManualClock
from tests.support.entries import FINGERPRINT, keys_of, numbered_pairs
from tests.support.polling import eventually_async
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.25
SLACK_S = 1.0
"""What a busy machine may add to a time-out."""
PAIRS = numbered_pairs(16, tokens=448)
KEYS = keys_of(PAIRS)
ENTRIES = [entry for _, entry in PAIRS]


@pytest.fixture
def writer(cache_server: ValkeyServer) -> RedisTokenWriter:
    made = RedisTokenWriter.connect(cache_server.url)
    made.write(FINGERPRINT, PAIRS)
    return made


@contextlib.asynccontextmanager
async def read_path(
    server: ValkeyServer, *, clock: Callable[[], float] = time.monotonic, timeout_s: float = TIMEOUT_S
) -> AsyncIterator[TokenCache]:
    """The read path's cache without L1, so that every lookup has to ask the server."""
    reader = RedisTokenReader.connect(server.url, timeout_s=timeout_s)
    cache = TokenCache(reader, l1=L1Cache(0), write_back_ttl_s=60, circuit=Circuit(open_s=1.0, clock=clock))
    yield cache
    await cache.close()


async def test_a_hung_cache_costs_one_time_out_then_nothing_until_it_is_back(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    clock = ManualClock()
    async with read_path(cache_server, clock=clock) as cache:
        assert (await cache.lookup(FINGERPRINT, KEYS)).all_hit
        cache_server.pause()
        began = time.monotonic()
        first = await cache.lookup(FINGERPRINT, KEYS)
        assert TIMEOUT_S * 0.9 <= time.monotonic() - began < TIMEOUT_S + SLACK_S
        assert set(first.reasons) == {MissReason.UNAVAILABLE}

        began = time.monotonic()
        later = [await cache.lookup(FINGERPRINT, KEYS) for _ in range(40)]
        await cache.write_back(FINGERPRINT, PAIRS)
        assert time.monotonic() - began < SLACK_S
        assert {reason for lookup in later for reason in lookup.reasons} == {MissReason.UNAVAILABLE}
        assert cache.stats().misses_by_reason[MissReason.UNAVAILABLE] == 41 * 16
        assert cache.stats().errors == 1

        cache_server.resume()
        clock.advance(1.0)
        back = await cache.lookup(FINGERPRINT, KEYS)
        assert (list(back.entries), back.all_hit) == (ENTRIES, True)
    writer.close()


async def test_a_hung_cache_does_not_delay_a_first_connection_longer_than_the_time_out(
    cache_server: ValkeyServer,
) -> None:
    cache_server.pause()
    async with read_path(cache_server) as cache:
        began = time.monotonic()
        assert (await cache.lookup(FINGERPRINT, KEYS)).errors == 1
        assert time.monotonic() - began < TIMEOUT_S + SLACK_S
    cache_server.resume()


async def test_a_killed_cache_is_a_miss_and_its_successor_is_found_and_filled(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    clock = ManualClock()
    async with read_path(cache_server, clock=clock) as cache:
        assert (await cache.lookup(FINGERPRINT, KEYS)).all_hit
        cache_server.kill()
        assert set((await cache.lookup(FINGERPRINT, KEYS)).reasons) == {MissReason.UNAVAILABLE}
        cache_server.start()
        clock.advance(1.0)
        assert set((await cache.lookup(FINGERPRINT, KEYS)).reasons) == {MissReason.ABSENT}
        await cache.write_back(FINGERPRINT, PAIRS)
        assert (await cache.lookup(FINGERPRINT, KEYS)).all_hit
    writer.close()


async def test_every_connection_of_a_restarted_cache_works_at_once(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    async with read_path(cache_server, timeout_s=20) as cache:
        await asyncio.gather(*(cache.lookup(FINGERPRINT, KEYS) for _ in range(20)))
        await asyncio.to_thread(cache_server.kill)  # a loop that stands still cannot notice closed connections
        await asyncio.to_thread(cache_server.start)
        writer.write(FINGERPRINT, PAIRS)
        lookups = await asyncio.gather(*(cache.lookup(FINGERPRINT, KEYS) for _ in range(20)))
        assert [lookup.all_hit for lookup in lookups] == [True] * 20
    writer.close()


async def test_a_flushed_cache_is_noticed_by_its_epoch_and_refilled_by_misses(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    writer.set_epoch("before")
    async with read_path(cache_server) as cache:
        cache_server.flush()
        assert writer.epoch() is None
        lookup = await cache.lookup(FINGERPRINT, KEYS)
        assert set(lookup.reasons) == {MissReason.ABSENT}
        assert lookup.errors == 0
        await cache.write_back(FINGERPRINT, PAIRS)
        assert (await cache.lookup(FINGERPRINT, KEYS)).all_hit
    writer.close()


async def test_cancelled_lookups_never_leave_their_reply_to_the_next_caller(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    chance = random.Random(7)
    async with read_path(cache_server) as cache:

        async def ask(number: int) -> None:
            lookup = await cache.lookup(FINGERPRINT, [KEYS[number], KEYS[-number]])
            assert list(lookup.entries) == [ENTRIES[number], ENTRIES[-number]]

        for _ in range(60):
            tasks = [asyncio.create_task(ask(chance.randrange(16))) for _ in range(10)]
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)  # yields to the other tasks, waits for nothing
            for task in chance.sample(tasks, 5):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert [r for r in results if r is not None and not isinstance(r, asyncio.CancelledError)] == []
        assert cache.stats().misses == 0
    writer.close()


async def test_more_tasks_than_connections_wait_for_each_other(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    url = f"{cache_server.url}?client_name=reader"
    reader = RedisTokenReader.connect(url, timeout_s=10, max_connections=2)
    found = await asyncio.gather(*(reader.read(FINGERPRINT, KEYS) for _ in range(100)))
    assert found == [ENTRIES] * 100
    with cache_server.client() as client:
        assert [each["name"] for each in client.client_list()].count("reader") == 2
    await reader.close()
    writer.close()


async def test_a_callers_client_with_text_replies_and_default_retries_is_bounded_too(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    client = redis.asyncio.Redis.from_url(cache_server.url, decode_responses=True)
    reader = RedisTokenReader(client, timeout_s=TIMEOUT_S)
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    assert await reader.clear() == 16
    cache_server.pause()
    began = time.monotonic()
    for call in (reader.read(FINGERPRINT, KEYS), reader.write_back(FINGERPRINT, PAIRS, ttl_s=9), reader.ping()):
        with pytest.raises(Unavailable, match="in time"):
            await call
    assert time.monotonic() - began < 3 * TIMEOUT_S + SLACK_S
    cache_server.resume()
    await reader.close()
    await client.set("k", "v")
    assert await client.get("k") == "v"
    await client.aclose()
    writer.close()


async def test_a_connection_that_timed_out_is_not_used_again(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    reader = RedisTokenReader.connect(cache_server.url, timeout_s=TIMEOUT_S, max_connections=1)
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ENTRIES[:1]
    cache_server.pause()
    with pytest.raises(Unavailable):
        await reader.read(FINGERPRINT, KEYS[1:2])
    cache_server.resume()
    assert await reader.read(FINGERPRINT, KEYS[2:3]) == ENTRIES[2:3]
    await reader.close()
    writer.close()


CALLS: dict[str, Callable[[TokenWriter], object]] = {
    "write": lambda w: w.write(FINGERPRINT, PAIRS),
    "read": lambda w: w.read(FINGERPRINT, KEYS),
    "exists": lambda w: w.exists(FINGERPRINT, KEYS),
    "scan": lambda w: list(w.scan()),
    "delete": lambda w: w.delete(FINGERPRINT, KEYS),
    "clear": lambda w: w.clear(),
    "epoch": lambda w: w.epoch(),
    "set_epoch": lambda w: w.set_epoch("e"),
    "server": lambda w: w.server(),
    "ping": lambda w: w.ping(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("fault", ["hung", "killed"])
async def test_every_call_of_a_worker_on_a_failed_cache_is_unavailable_in_time(
    cache_server: ValkeyServer, call: Callable[[TokenWriter], object], fault: str
) -> None:
    writer = RedisTokenWriter.connect(cache_server.url, timeout_s=TIMEOUT_S)
    writer.ping()
    cache_server.pause() if fault == "hung" else cache_server.kill()
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        call(writer)
    assert time.monotonic() - began < 2 * TIMEOUT_S + SLACK_S
    assert (caught.value.service, caught.value.retryable) == ("cache", True)
    cache_server.ensure_running()
    call(writer)
    writer.close()


async def test_a_cache_without_room_refuses_and_the_worker_learns_it() -> None:
    with ValkeyServer(options=("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")) as server:
        writer = RedisTokenWriter.connect(server.url)
        writer.write(FINGERPRINT, PAIRS)
        with pytest.raises(Unavailable, match="full"):
            writer.write(FINGERPRINT, ((bytes([n // 256, n % 256] * 8), ENTRIES[0]) for n in range(5000)))
        assert writer.read(FINGERPRINT, KEYS) == ENTRIES
        writer.close()


async def test_after_a_write_was_refused_the_same_writer_gets_its_own_replies() -> None:
    """Batches are sent before the last reply is read: what is left of replies must go with the connection."""
    many = numbered_pairs(3000, tokens=448)
    with ValkeyServer(options=("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")) as server:
        writer = RedisTokenWriter.connect(server.url)
        with pytest.raises(Unavailable, match="full"):
            writer.write(FINGERPRINT, many)
        with server.client() as client:
            client.config_set("maxmemory", 0)
        assert writer.write(FINGERPRINT, many) == len(many)
        assert writer.read(FINGERPRINT, keys_of(many)) == [entry for _, entry in many]


async def test_a_write_that_is_interrupted_leaves_no_reply_behind(writer: RedisTokenWriter) -> None:
    def interrupted() -> Iterator[PassageEntry]:
        yield from numbered_pairs(2000, tokens=448)
        raise OutOfTime(1.0)

    for _ in range(3):
        with pytest.raises(OutOfTime):
            writer.write(FINGERPRINT, interrupted())
        assert writer.read(FINGERPRINT, KEYS) == ENTRIES


async def test_evictions_are_reported() -> None:
    with ValkeyServer(options=("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")) as server:
        writer = RedisTokenWriter.connect(server.url)
        for round_number in range(200):
            writer.write(f"{round_number:032x}", PAIRS)
        described = writer.server()
        assert (described.evicted_keys > 0, described.eviction_policy) == (True, "allkeys-lru")
        assert described.max_bytes == 3 << 20
        writer.close()


@pytest.mark.parametrize("ttl_s", [None, 60])
async def test_a_giant_write_is_sent_in_bounded_pieces(cache_server: ValkeyServer, ttl_s: int | None) -> None:
    with cache_server.client() as client:
        writer = RedisTokenWriter(client, ttl_s=ttl_s, max_batch_bytes=64 * 1024)
        pairs = numbered_pairs(100, tokens=5000)
        client.config_resetstat()
        assert writer.write(FINGERPRINT, iter(pairs)) == 100
        calls = client.info("commandstats")
        if ttl_s is None:
            assert calls["cmdstat_mset"]["calls"] == 17  # six entries of 10 KB fit in 64 KiB
        else:
            assert calls["cmdstat_set"]["calls"] == 100
        assert writer.read(FINGERPRINT, keys_of(pairs)) == [entry for _, entry in pairs]


async def test_one_lookup_is_one_command_whatever_the_number_of_passages(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    async with read_path(cache_server) as cache:
        await cache.ping()
        with cache_server.client() as client:
            client.config_resetstat()
            await cache.lookup(FINGERPRINT, KEYS * 8)
            stats = client.info("commandstats")
        assert stats["cmdstat_mget"]["calls"] == 1
    writer.close()


async def test_a_value_of_another_type_under_an_entrys_key_is_a_miss_that_a_worker_replaces(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    with cache_server.client() as client:
        client.delete(entry_key(FINGERPRINT, KEYS[0]))
        client.rpush(entry_key(FINGERPRINT, KEYS[0]), "a list")
    assert writer.read(FINGERPRINT, KEYS[:1]) == [MissReason.ABSENT]
    writer.write(FINGERPRINT, PAIRS[:1])
    assert writer.read(FINGERPRINT, KEYS[:1]) == ENTRIES[:1]
    writer.close()


async def test_a_cache_that_comes_back_is_used_again_without_being_told(
    cache_server: ValkeyServer, writer: RedisTokenWriter
) -> None:
    async with read_path(cache_server) as cache:
        cache_server.kill()
        assert not (await cache.lookup(FINGERPRINT, KEYS)).all_hit
        cache_server.start()
        writer.write(FINGERPRINT, PAIRS)

        async def found() -> bool:
            return (await cache.lookup(FINGERPRINT, KEYS)).all_hit

        await eventually_async(found)
    writer.close()
