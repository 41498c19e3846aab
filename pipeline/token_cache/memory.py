"""The shared cache in one process' memory: for tests, and where there is no Redis.

Holds encoded bytes, as Redis does, so that corruption and secrets behave alike.
"""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from cachetools import TLRUCache

from pipeline.errors import Unavailable
from pipeline.token_cache.codec import encode_entry
from pipeline.token_cache.dictionary import Dictionary, no_dictionary
from pipeline.token_cache.keys import EPOCH_KEY, EntryName, entry_key, entry_keys, parse_entry_key
from pipeline.token_cache.marks import EntryRights, split_mark
from pipeline.token_cache.stores import CacheServer, Found, PassageEntry, decode_found

_NO_LIMIT = 1 << 62
_NEVER = float("inf")


class _Item(NamedTuple):
    value: bytes
    expires_at: float
    size_bytes: int


class MemoryStore:
    """Keys, values and expiries, bounded in bytes like a server with `maxmemory` and an LRU policy. Thread-safe."""

    def __init__(self, *, max_bytes: int = _NO_LIMIT, clock: Callable[[], float] = time.monotonic) -> None:
        self.available = True
        """Set to False to have every call fail, as if the server were gone."""
        self._clock = clock
        self._lock = threading.Lock()
        self._items: TLRUCache[str, _Item] = TLRUCache(
            max_bytes, lambda _key, item, _now: item.expires_at, timer=clock, getsizeof=lambda item: item.size_bytes
        )

    @property
    def max_bytes(self) -> int:
        """Bound of all keys and values."""
        return int(self._items.maxsize)

    @property
    def used_bytes(self) -> int:
        """Bytes of all keys and values."""
        return int(self._items.currsize)

    def get(self, key: str) -> bytes | None:
        """Return a value that has not expired."""
        self._check()
        with self._lock:
            item = self._items.get(key)
        return None if item is None else item.value

    def set(self, key: str, value: bytes, *, ttl_s: float | None = None, keep_ttl: bool = False) -> None:
        """Store a value; its earlier expiry goes unless it is kept."""
        self._check()
        with self._lock:
            earlier = self._items.get(key) if keep_ttl else None
            expires_at = _NEVER if ttl_s is None else self._clock() + ttl_s
            if earlier is not None:
                expires_at = earlier.expires_at
            self._items[key] = _Item(value, expires_at, len(key) + len(value))

    def set_ttl(self, key: str, ttl_s: float | None) -> bool:
        """Let a key live so many seconds from now, None for ever; return whether it is there."""
        value = self.get(key)
        if value is not None:
            self.set(key, value, ttl_s=ttl_s)
        return value is not None

    def drop(self, key: str) -> bool:
        """Remove a key; return whether it was there."""
        self._check()
        with self._lock:
            return self._items.pop(key, None) is not None

    def names(self) -> list[str]:
        """Return all keys that have not expired."""
        self._check()
        with self._lock:
            return list(self._items)

    def ttl_s(self, key: str) -> float | None:
        """Return the seconds a key still lives, None for ever."""
        expires_at = self._items[key].expires_at
        return None if expires_at == _NEVER else expires_at - self._clock()

    def _check(self) -> None:
        if not self.available:
            raise Unavailable("the in-memory token cache is switched off", service="cache")


class MemoryTokenWriter:
    """Implements `TokenWriter` over a `MemoryStore`."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        hmac_key: bytes | None = None,
        ttl_s: int | None = None,
        dictionary_for: Callable[[str], Dictionary] = no_dictionary,
    ) -> None:
        self._store = store
        self._rights = EntryRights(hmac_key)
        self._hmac_key = hmac_key
        self._ttl_s = ttl_s
        self._dictionary_for = dictionary_for

    def write(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> int:
        """See `TokenWriter.write`."""
        self._rights.require(self._store.get(EPOCH_KEY))
        count, dictionary = 0, self._dictionary_for(fingerprint)
        for passage_key, entry in pairs:
            key = entry_key(fingerprint, passage_key)
            value = encode_entry(key, entry, hmac_key=self._hmac_key, dictionary=dictionary)
            self._store.set(key, value, ttl_s=self._ttl_s)
            count += 1
        return count

    def read(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Found]:
        """See `TokenWriter.read`."""
        return _read(self._store, fingerprint, passage_keys, hmac_key=self._hmac_key)

    def exists(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[bool]:
        """See `TokenWriter.exists`."""
        return [self._store.get(entry_key(fingerprint, key)) is not None for key in passage_keys]

    def scan(self, fingerprint: str | None = None) -> Iterator[EntryName]:
        """See `TokenWriter.scan`."""
        for key in self._store.names():
            name = parse_entry_key(key.encode())
            if name is not None and fingerprint in (None, name.fingerprint):
                yield name

    def delete(self, fingerprint: str, passage_keys: Iterable[bytes]) -> int:
        """See `TokenWriter.delete`."""
        return sum([self._store.drop(entry_key(fingerprint, key)) for key in passage_keys])

    def expire(self, fingerprint: str, passage_keys: Sequence[bytes], *, ttl_s: int) -> int:
        """See `TokenWriter.expire`."""
        return sum([self._store.set_ttl(entry_key(fingerprint, key), ttl_s) for key in passage_keys])

    def keep(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """See `TokenWriter.keep`."""
        return sum([self._store.set_ttl(entry_key(fingerprint, key), self._ttl_s) for key in passage_keys])

    def clear(self, fingerprint: str | None = None) -> int:
        """See `TokenWriter.clear`."""
        return sum([self._store.drop(entry_key(*name)) for name in self.scan(fingerprint)])

    def epoch(self) -> str | None:
        """See `TokenWriter.epoch`."""
        return split_mark(self._store.get(EPOCH_KEY))[0]

    def set_epoch(self, epoch: str) -> None:
        """See `TokenWriter.set_epoch`."""
        self._store.set(EPOCH_KEY, self._rights.mark(epoch).encode())

    def seal(self) -> None:
        """See `TokenWriter.seal`."""
        epoch, check = split_mark(self._store.get(EPOCH_KEY))
        if epoch is not None and check is None:
            self.set_epoch(epoch)

    def key_mismatch(self) -> str | None:
        """See `TokenWriter.key_mismatch`."""
        return self._rights.mismatch(self._store.get(EPOCH_KEY))

    def server(self) -> CacheServer:
        """See `TokenWriter.server`; evictions are not counted."""
        return CacheServer(
            keys=len(self._store.names()),
            used_bytes=self._store.used_bytes,
            max_bytes=0 if self._store.max_bytes == _NO_LIMIT else self._store.max_bytes,
            evicted_keys=0,
            eviction_policy="allkeys-lru",
            append_only=False,
        )

    def ping(self) -> None:
        """See `TokenWriter.ping`."""
        self._store.names()

    def close(self) -> None:
        """See `TokenWriter.close`: the store stays."""


class MemoryTokenReader:
    """Implements `TokenReader` over a `MemoryStore`."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        hmac_key: bytes | None = None,
        dictionary_for: Callable[[str], Dictionary] = no_dictionary,
    ) -> None:
        self._store = store
        self._rights = EntryRights(hmac_key)
        self._hmac_key = hmac_key
        self._dictionary_for = dictionary_for

    async def read(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Found]:
        """See `TokenReader.read`."""
        return _read(self._store, fingerprint, passage_keys, hmac_key=self._hmac_key)

    async def write_back(
        self, fingerprint: str, pairs: Iterable[PassageEntry], *, ttl_s: int, replace: Collection[bytes] = ()
    ) -> None:
        """See `TokenReader.write_back`."""
        self._rights.require(self._store.get(EPOCH_KEY))
        dictionary = self._dictionary_for(fingerprint)
        for passage_key, entry in pairs:
            key = entry_key(fingerprint, passage_key)
            value = encode_entry(key, entry, hmac_key=self._hmac_key, dictionary=dictionary)
            if self._store.get(key) is None:
                self._store.set(key, value, ttl_s=ttl_s)
            elif passage_key in replace:
                self._store.set(key, value, keep_ttl=True)

    async def clear(self, fingerprint: str | None = None) -> int:
        """See `TokenReader.clear`."""
        return MemoryTokenWriter(self._store).clear(fingerprint)

    async def used_bytes(self) -> int:
        """See `TokenReader.used_bytes`."""
        self._store.names()
        return self._store.used_bytes

    async def scan_page(self, cursor: int) -> tuple[int, list[EntryName]]:  # noqa: ARG002  # one page holds them all
        """See `TokenReader.scan_page`."""
        return 0, list(MemoryTokenWriter(self._store).scan())

    async def delete(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """See `TokenReader.delete`."""
        return MemoryTokenWriter(self._store).delete(fingerprint, passage_keys)

    async def epoch(self) -> str | None:
        """See `TokenReader.epoch`."""
        return MemoryTokenWriter(self._store).epoch()

    async def ping(self) -> None:
        """See `TokenReader.ping`."""
        self._store.names()

    async def close(self) -> None:
        """See `TokenReader.close`: the store stays."""


def _read(
    store: MemoryStore, fingerprint: str, passage_keys: Sequence[bytes], *, hmac_key: bytes | None
) -> list[Found]:
    keys = entry_keys(fingerprint, passage_keys)
    return decode_found(keys, [store.get(key) for key in keys], hmac_key=hmac_key)
