"""What every shared cache of entries must do, on real Valkey and on the in-memory twin."""

from collections.abc import Callable, Iterator
from typing import Protocol

import pytest
import structlog.testing

from pipeline.token_cache import (
    EPOCH_KEY,
    EntryName,
    KeyMismatchError,
    MemoryStore,
    MemoryTokenReader,
    MemoryTokenWriter,
    MissReason,
    RedisTokenReader,
    RedisTokenWriter,
    TokenReader,
    TokenWriter,
    entry_key,
)
from tests.support.entries import (
    FINGERPRINT,
    OTHER_FINGERPRINT,
    entry_of,
    keys_of,
    numbered_pairs,
    passage_key_of,
)
from tests.support.valkey import ValkeyServer

pytestmark = pytest.mark.anyio

ABSENT, CORRUPT = MissReason.ABSENT, MissReason.CORRUPT
PAIRS = numbered_pairs(3)
KEYS = keys_of(PAIRS)
ENTRIES = [entry for _, entry in PAIRS]


class Implementation(Protocol):
    """One implementation and a way behind its back."""

    def writer(self, *, hmac_key: bytes | None = None, ttl_s: int | None = None) -> TokenWriter: ...

    def reader(self, *, hmac_key: bytes | None = None) -> TokenReader: ...

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes) -> None:
        """Store a value; an expiry stays."""

    def ttl_s(self, key: str) -> float | None:
        """Seconds a key lives, None for ever."""

    def close(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self._store = MemoryStore()
        self.get, self.ttl_s = self._store.get, self._store.ttl_s

    def writer(self, *, hmac_key: bytes | None = None, ttl_s: int | None = None) -> TokenWriter:
        return MemoryTokenWriter(self._store, hmac_key=hmac_key, ttl_s=ttl_s)

    def reader(self, *, hmac_key: bytes | None = None) -> TokenReader:
        return MemoryTokenReader(self._store, hmac_key=hmac_key)

    def put(self, key: str, value: bytes) -> None:
        self._store.set(key, value, keep_ttl=True)

    def close(self) -> None:
        pass


class OnValkey:
    def __init__(self, url: str, server: ValkeyServer) -> None:
        self._url = url
        self._client = server.client()
        self._writers: list[RedisTokenWriter] = []

    def writer(self, *, hmac_key: bytes | None = None, ttl_s: int | None = None) -> TokenWriter:
        self._writers.append(RedisTokenWriter.connect(self._url, hmac_key=hmac_key, ttl_s=ttl_s))
        return self._writers[-1]

    def reader(self, *, hmac_key: bytes | None = None) -> TokenReader:
        return RedisTokenReader.connect(self._url, hmac_key=hmac_key, timeout_s=10)

    def get(self, key: str) -> bytes | None:
        value = self._client.get(key)
        assert value is None or isinstance(value, bytes)
        return value

    def put(self, key: str, value: bytes) -> None:
        self._client.set(key, value, keepttl=True)

    def ttl_s(self, key: str) -> float | None:
        milliseconds = self._client.pttl(key)
        assert milliseconds != -2, "no such key"
        return None if milliseconds == -1 else milliseconds / 1000

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._client.close()


@pytest.fixture(params=["memory", "valkey-tcp", "valkey-socket"])
def cache(request: pytest.FixtureRequest) -> Iterator[Implementation]:
    made: Implementation = InMemory()
    if request.param != "memory":
        server: ValkeyServer = request.getfixturevalue("cache_server")
        made = OnValkey(server.url if request.param == "valkey-tcp" else server.socket_url, server)
    yield made
    made.close()


def redis_key(number: int = 0, fingerprint: str = FINGERPRINT) -> str:
    return entry_key(fingerprint, KEYS[number])


async def test_a_written_entry_is_read_by_both_sides_in_the_order_asked(cache: Implementation) -> None:
    writer, reader = cache.writer(), cache.reader()
    assert writer.write(FINGERPRINT, iter(PAIRS)) == 3
    asked = [KEYS[2], passage_key_of("nobody's"), KEYS[0], KEYS[2]]
    wanted = [ENTRIES[2], ABSENT, ENTRIES[0], ENTRIES[2]]
    assert writer.read(FINGERPRINT, asked) == wanted
    assert await reader.read(FINGERPRINT, asked) == wanted
    await reader.close()


async def test_nothing_asked_or_written_is_nothing_done(cache: Implementation) -> None:
    writer, reader = cache.writer(), cache.reader()
    assert writer.write(FINGERPRINT, []) == 0
    assert writer.read(FINGERPRINT, []) == []
    assert writer.exists(FINGERPRINT, []) == []
    assert writer.delete(FINGERPRINT, []) == 0
    assert await reader.read(FINGERPRINT, []) == []
    await reader.write_back(FINGERPRINT, [], ttl_s=1)
    await reader.close()


async def test_both_values_of_the_edge_flag_survive(cache: Implementation) -> None:
    pairs = [(KEYS[0], entry_of(5, right_safe=True)), (KEYS[1], entry_of(5, right_safe=False))]
    cache.writer().write(FINGERPRINT, pairs)
    reader = cache.reader()
    assert await reader.read(FINGERPRINT, KEYS[:2]) == [entry for _, entry in pairs]
    await reader.close()


async def test_ids_that_were_read_cannot_be_written_into(cache: Implementation) -> None:
    cache.writer().write(FINGERPRINT, PAIRS)
    reader = cache.reader()
    for found in [*cache.writer().read(FINGERPRINT, KEYS), *(await reader.read(FINGERPRINT, KEYS))]:
        assert not isinstance(found, MissReason)
        with pytest.raises(ValueError, match="read-only"):
            found.ids[0] = 0
    await reader.close()


async def test_specs_do_not_see_each_others_entries(cache: Implementation) -> None:
    cache.writer().write(OTHER_FINGERPRINT, PAIRS)
    assert cache.writer().read(FINGERPRINT, KEYS) == [ABSENT] * 3


async def test_policy_none_writes_without_and_fixed_with_expiry(cache: Implementation) -> None:
    cache.writer().write(FINGERPRINT, PAIRS)
    cache.writer(ttl_s=300).write(OTHER_FINGERPRINT, PAIRS)
    assert cache.ttl_s(redis_key()) is None
    assert cache.ttl_s(redis_key(fingerprint=OTHER_FINGERPRINT)) == pytest.approx(300, abs=30)


async def test_a_write_back_expires_and_a_workers_write_makes_it_stay(cache: Implementation) -> None:
    reader = cache.reader()
    await reader.write_back(FINGERPRINT, PAIRS, ttl_s=60)
    assert cache.ttl_s(redis_key()) == pytest.approx(60, abs=30)
    cache.writer().write(FINGERPRINT, PAIRS)
    assert cache.ttl_s(redis_key()) is None
    await reader.close()


async def test_a_write_back_neither_replaces_nor_shortens_a_workers_entry(cache: Implementation) -> None:
    reader = cache.reader()
    cache.writer().write(FINGERPRINT, PAIRS[:1])
    cache.writer(ttl_s=1000).write(FINGERPRINT, PAIRS[1:2])
    await reader.write_back(FINGERPRINT, [(key, entry_of(99)) for key in KEYS], ttl_s=60)
    assert await reader.read(FINGERPRINT, KEYS) == [ENTRIES[0], ENTRIES[1], entry_of(99)]
    assert cache.ttl_s(redis_key(0)) is None
    assert cache.ttl_s(redis_key(1)) == pytest.approx(1000, abs=30)
    await reader.close()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "truncated": lambda value: value[:-1],
    "cut to its header": lambda value: value[:12],
    "prolonged": lambda value: value + b"\0",
    "one bit flipped in an id": lambda value: value[:15] + bytes([value[15] ^ 1]) + value[16:],
    "edge flag flipped": lambda value: value[:4] + bytes([value[4] ^ 1]) + value[5:],
    "JSON of somebody else": lambda _: b"[1,2,3]",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_a_damaged_entry_is_a_miss_until_it_is_overwritten(
    cache: Implementation, damage: Callable[[bytes], bytes]
) -> None:
    writer, reader = cache.writer(), cache.reader()
    writer.write(FINGERPRINT, PAIRS)
    for number in range(2):
        cache.put(redis_key(number), damage(cache.get(redis_key(number)) or b""))
    assert await reader.read(FINGERPRINT, KEYS) == [CORRUPT, CORRUPT, ENTRIES[2]]
    assert writer.read(FINGERPRINT, KEYS) == [CORRUPT, CORRUPT, ENTRIES[2]]
    await reader.write_back(FINGERPRINT, PAIRS[:1], ttl_s=60, replace=KEYS[:1])
    writer.write(FINGERPRINT, PAIRS[1:2])
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    assert [cache.ttl_s(redis_key(number)) for number in range(2)] == [None, None]
    await reader.close()


async def test_an_entry_copied_to_another_key_is_a_miss(cache: Implementation) -> None:
    cache.writer().write(FINGERPRINT, PAIRS[:1])
    value = cache.get(redis_key(0)) or b""
    cache.put(redis_key(1), value)
    cache.put(redis_key(0, OTHER_FINGERPRINT), value)
    assert cache.writer().read(FINGERPRINT, KEYS[:2]) == [ENTRIES[0], CORRUPT]
    assert cache.writer().read(OTHER_FINGERPRINT, KEYS[:1]) == [CORRUPT]


@pytest.mark.parametrize(("written", "read"), [(None, b"secret"), (b"secret", None), (b"secret", b"other")])
async def test_entries_under_another_secret_are_misses_and_get_overwritten(
    cache: Implementation, written: bytes | None, read: bytes | None
) -> None:
    cache.writer(hmac_key=written).write(FINGERPRINT, PAIRS)
    reader = cache.reader(hmac_key=read)
    assert await reader.read(FINGERPRINT, KEYS) == [CORRUPT] * 3
    await reader.write_back(FINGERPRINT, PAIRS, ttl_s=60, replace=KEYS)
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    assert cache.writer(hmac_key=read).read(FINGERPRINT, KEYS) == ENTRIES
    await reader.close()


@pytest.mark.parametrize(("marked", "mine"), [(b"secret", None), (None, b"secret"), (b"secret", b"other")])
async def test_a_process_whose_key_does_not_fit_the_mark_writes_nothing(
    cache: Implementation, marked: bytes | None, mine: bytes | None
) -> None:
    fitting, reader = cache.writer(hmac_key=marked), cache.reader(hmac_key=mine)
    fitting.set_epoch("e1")
    fitting.write(FINGERPRINT, PAIRS)
    with structlog.testing.capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(KeyMismatchError):
                cache.writer(hmac_key=mine).write(FINGERPRINT, PAIRS)
            with pytest.raises(KeyMismatchError):
                await reader.write_back(FINGERPRINT, PAIRS, ttl_s=60, replace=KEYS)
    assert fitting.read(FINGERPRINT, KEYS) == ENTRIES
    said = [entry["event"] for entry in logs]
    assert said == ["cache.foreign_key"] * 3, "each side says so once; the writers here are two"
    assert cache.writer(hmac_key=mine).key_mismatch() is not None
    assert (fitting.key_mismatch(), fitting.epoch()) == (None, "e1")
    cache.writer(hmac_key=mine).set_epoch("e2")
    await reader.write_back(FINGERPRINT, PAIRS, ttl_s=60, replace=KEYS)
    assert await reader.read(FINGERPRINT, KEYS) == ENTRIES
    with pytest.raises(KeyMismatchError):
        fitting.write(FINGERPRINT, PAIRS)
    await reader.close()


async def test_everybody_may_write_under_the_mark_of_an_earlier_version_until_it_is_sealed(
    cache: Implementation,
) -> None:
    signing, other = cache.writer(hmac_key=b"secret"), cache.writer()
    signing.seal()
    assert signing.epoch() is None, "there is nothing to seal"
    cache.put(EPOCH_KEY, b"e1")
    other.write(FINGERPRINT, PAIRS)
    signing.seal()
    other.seal()
    assert (signing.epoch(), signing.key_mismatch()) == ("e1", None)
    with pytest.raises(KeyMismatchError):
        other.write(FINGERPRINT, PAIRS)


async def test_replacing_a_damaged_entry_leaves_its_expiry_as_it_was(cache: Implementation) -> None:
    cache.writer(ttl_s=1000).write(FINGERPRINT, PAIRS[:1])
    cache.put(redis_key(), b"damaged")
    reader = cache.reader()
    await reader.write_back(FINGERPRINT, PAIRS[:1], ttl_s=60, replace=KEYS[:1])
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ENTRIES[:1]
    assert cache.ttl_s(redis_key()) == pytest.approx(1000, abs=30)
    await reader.close()


async def test_replacing_an_entry_that_has_gone_writes_it_back_with_a_life_time(cache: Implementation) -> None:
    reader = cache.reader()
    await reader.write_back(FINGERPRINT, PAIRS[:1], ttl_s=60, replace=KEYS)
    assert await reader.read(FINGERPRINT, KEYS[:1]) == ENTRIES[:1]
    assert cache.ttl_s(redis_key()) == pytest.approx(60, abs=30)
    await reader.close()


async def test_existence_says_nothing_about_content(cache: Implementation) -> None:
    writer = cache.writer()
    writer.write(FINGERPRINT, PAIRS[:1])
    cache.put(redis_key(1), b"anything")
    assert writer.exists(FINGERPRINT, KEYS) == [True, True, False]


async def test_delete_drops_the_named_entries(cache: Implementation) -> None:
    writer = cache.writer()
    writer.write(FINGERPRINT, PAIRS)
    assert writer.delete(FINGERPRINT, [KEYS[0], KEYS[1], passage_key_of("nobody's")]) == 2
    assert writer.exists(FINGERPRINT, KEYS) == [False, False, True]


async def test_scan_names_every_entry_and_nothing_else(cache: Implementation) -> None:
    writer = cache.writer()
    pairs = numbered_pairs(2500, tokens=1)
    writer.write(FINGERPRINT, pairs)
    writer.write(OTHER_FINGERPRINT, PAIRS[:1])
    writer.set_epoch("e1")
    cache.put("ff:foreign:key", b"")
    cache.put("other", b"")
    ours = {EntryName(FINGERPRINT, key) for key in keys_of(pairs)}
    assert set(writer.scan(FINGERPRINT)) == ours
    assert set(writer.scan()) == ours | {EntryName(OTHER_FINGERPRINT, KEYS[0])}


@pytest.mark.parametrize("side", ["writer", "reader"])
async def test_clear_drops_entries_and_leaves_everything_else(cache: Implementation, side: str) -> None:
    writer, reader = cache.writer(), cache.reader()
    writer.write(FINGERPRINT, numbered_pairs(1500, tokens=1))
    writer.write(OTHER_FINGERPRINT, PAIRS)
    writer.set_epoch("e1")
    cache.put("ff:foreign:key", b"x")

    async def clear(fingerprint: str | None = None) -> int:
        return writer.clear(fingerprint) if side == "writer" else await reader.clear(fingerprint)

    assert await clear(FINGERPRINT) == 1500
    assert writer.read(OTHER_FINGERPRINT, KEYS) == ENTRIES
    assert await clear() == 3
    assert list(writer.scan()) == []
    assert (writer.epoch(), cache.get("ff:foreign:key")) == ("e1", b"x")
    await reader.close()


async def test_the_epoch_is_kept_until_the_cache_is_replaced(cache: Implementation) -> None:
    writer = cache.writer(ttl_s=10)
    assert writer.epoch() is None
    writer.set_epoch("0f")
    assert cache.writer().epoch() == "0f"
    assert cache.ttl_s(EPOCH_KEY) is None


async def test_the_server_is_described(cache: Implementation) -> None:
    writer = cache.writer()
    writer.write(FINGERPRINT, PAIRS)
    server = writer.server()
    assert server.keys == 3
    assert server.used_bytes > 0
    assert server.evicted_keys == 0
    assert server.eviction_policy
    assert not server.append_only


async def test_both_sides_answer_a_ping_and_close_twice(cache: Implementation) -> None:
    writer, reader = cache.writer(), cache.reader()
    writer.ping()
    await reader.ping()
    for _ in range(2):
        writer.close()
        await reader.close()


async def test_an_expired_entry_is_kept_again_as_if_just_written(cache: Implementation) -> None:
    for ttl_s in (None, 500):
        writer = cache.writer(ttl_s=ttl_s)
        writer.write(FINGERPRINT, PAIRS)
        assert writer.expire(FINGERPRINT, [*KEYS[:2], passage_key_of("nobody's")], ttl_s=60) == 2
        lives = cache.ttl_s(redis_key(0))
        assert lives is not None
        assert 50 < lives <= 60
        assert writer.keep(FINGERPRINT, [*KEYS, passage_key_of("nobody's")]) == 3
        lives = cache.ttl_s(redis_key(0))
        assert lives is None if ttl_s is None else lives is not None and 400 < lives <= 500
        assert writer.read(FINGERPRINT, KEYS) == ENTRIES


async def test_an_expired_entry_that_is_written_again_stays(cache: Implementation) -> None:
    writer = cache.writer()
    writer.write(FINGERPRINT, PAIRS)
    writer.expire(FINGERPRINT, KEYS, ttl_s=60)
    writer.write(FINGERPRINT, PAIRS[:1])
    assert cache.ttl_s(redis_key(0)) is None
    assert cache.ttl_s(redis_key(1)) is not None
