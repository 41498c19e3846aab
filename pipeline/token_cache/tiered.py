"""The read path's cache: L1 in memory, then one call to the shared cache, then whatever the caller computes.

What must stay true: a cache that is down, hung, flushed or corrupted makes a lookup slower by at most one time-out a
second, and never makes it fail or return ids that were not written for that passage under that spec.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, TypeAlias

from cachetools import LRUCache

from pipeline.errors import Unavailable
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache.circuit import Circuit
from pipeline.token_cache.codec import Entry
from pipeline.token_cache.keys import EntryName
from pipeline.token_cache.l1 import L1Cache
from pipeline.token_cache.marks import KeyMismatchError
from pipeline.token_cache.single_flight import SingleFlight
from pipeline.token_cache.stats import LookupCounter, LookupStats
from pipeline.token_cache.stores import Found, MissReason, PassageEntry, TokenReader

logger = get_logger(__name__)

Source: TypeAlias = Literal["l1", "l2", "miss"]
"""Where an entry came from."""

ComputeEntries: TypeAlias = Callable[[Sequence[bytes]], Awaitable[Mapping[bytes, Entry]]]
"""Tokenizes passages by key; leaves out those whose text cannot be had any more."""

_L1: Final[tuple[Source, ...]] = ("l1",)
_NONE: Final = (None,)
_CORRUPT_REMEMBERED = 10_000
_WRITE_BACKS_PENDING = 64


class Lookup(NamedTuple):
    """What is known about a list of passages; the four tuples run parallel to `passage_keys`."""

    fingerprint: str
    """Of the spec."""
    passage_keys: tuple[bytes, ...]
    """What was asked for, in order."""
    entries: tuple[Entry | None, ...]
    """Entry or None."""
    sources: tuple[Source, ...]
    """Stays `miss` for entries that had to be computed."""
    reasons: tuple[MissReason | None, ...]
    """Why a passage missed; None for hits."""
    errors: int
    """Failed calls to the shared cache: 0 or 1."""
    elapsed_s: float
    """Time spent so far, seconds."""

    @property
    def missing(self) -> list[bytes]:
        """Keys without an entry, each once, in order."""
        return list(dict.fromkeys(k for k, entry in zip(self.passage_keys, self.entries, strict=True) if entry is None))

    @property
    def all_hit(self) -> bool:
        """Whether no passage missed."""
        return "miss" not in self.sources


class TokenCache:
    """L1 and L2 behind one face, for one event loop. Only `clear` raises when the shared cache fails."""

    def __init__(
        self,
        reader: TokenReader,
        *,
        l1: L1Cache,
        write_back_ttl_s: int,
        circuit: Circuit | None = None,
    ) -> None:
        self._reader = reader
        self._l1 = l1
        self._write_back_ttl_s = write_back_ttl_s
        self._circuit = circuit or Circuit()
        self._counter = LookupCounter()
        self._flights: SingleFlight[tuple[str, bytes], Entry] = SingleFlight()
        self._corrupt: LRUCache[tuple[str, bytes], bool] = LRUCache(_CORRUPT_REMEMBERED)
        self._write_backs: set[asyncio.Task[None]] = set()

    async def lookup(self, fingerprint: str, passage_keys: Sequence[bytes]) -> Lookup:
        """Return the entries that L1 or the shared cache has, in one round trip at most.

        Args:
            fingerprint: Of the spec.
            passage_keys: 16 bytes each, any number; none are no lookup, which nobody counts.
        """
        if not passage_keys:
            return Lookup(fingerprint, (), (), (), (), 0, 0.0)
        began = time.perf_counter()
        entries = self._l1.get_many(fingerprint, passage_keys)
        count = len(entries)
        if all(entries):
            elapsed_s = time.perf_counter() - began
            self._counter.record_lookup(hits=count, misses=(), elapsed_s=elapsed_s)
            return Lookup(fingerprint, tuple(passage_keys), tuple(entries), _L1 * count, _NONE * count, 0, elapsed_s)
        absent = [index for index, entry in enumerate(entries) if entry is None]
        asked = [passage_keys[index] for index in absent]
        found, errors = await self._read(fingerprint, asked)
        sources: list[Source] = ["l1"] * count
        reasons: list[MissReason | None] = [None] * count
        misses: list[MissReason] = []
        hits: list[PassageEntry] = []
        for index, key, value in zip(absent, asked, found, strict=True):
            if isinstance(value, Entry):
                entries[index], sources[index] = value, "l2"
                hits.append((key, value))
                continue
            reasons[index], sources[index] = value, "miss"
            misses.append(value)
            if value is MissReason.CORRUPT:
                self._corrupt[fingerprint, key] = True  # to be replaced
        self._l1.put_many(fingerprint, hits)
        elapsed_s = time.perf_counter() - began
        self._counter.record_lookup(hits=count - len(misses), misses=misses, elapsed_s=elapsed_s)
        return Lookup(
            fingerprint, tuple(passage_keys), tuple(entries), tuple(sources), tuple(reasons), errors, elapsed_s
        )

    async def resolve(self, lookup: Lookup, compute: ComputeEntries) -> Lookup:
        """Fill a lookup's misses, each key computed once however many callers want it, and write them back.

        The write-back happens in the background. What `compute` leaves out stays None.

        Raises:
            Exception: What `compute` raises for keys that only this caller's call could give.
        """
        missing = lookup.missing
        if not missing:
            return lookup
        began = time.perf_counter()
        fingerprint = lookup.fingerprint

        async def compute_and_keep(names: Sequence[tuple[str, bytes]]) -> Mapping[tuple[str, bytes], Entry]:
            computed = await compute([key for _, key in names])
            self.write_back_soon(fingerprint, computed.items())
            return {(fingerprint, key): entry for key, entry in computed.items()}

        computed = await self._flights.run([(fingerprint, key) for key in missing], compute_and_keep)
        entries = tuple(
            entry or computed.get((fingerprint, key))
            for key, entry in zip(lookup.passage_keys, lookup.entries, strict=True)
        )
        elapsed_s = lookup.elapsed_s + time.perf_counter() - began
        self._counter.record_resolved(elapsed_s=elapsed_s)
        return lookup._replace(entries=entries, elapsed_s=elapsed_s)

    async def write_back(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> None:
        """Keep computed entries in L1 and, unless something is there by now, in the shared cache.

        Values that were read as corrupt are replaced. A failure is counted and logged, not raised.
        """
        pairs = list(pairs)
        self._l1.put_many(fingerprint, pairs)
        if not pairs or not self._circuit.allows():
            return
        corrupt = {key for key, _ in pairs if (fingerprint, key) in self._corrupt}
        try:
            await self._reader.write_back(fingerprint, pairs, ttl_s=self._write_back_ttl_s, replace=corrupt)
        except KeyMismatchError:
            return  # the cache answers, and this process has no right to write; that is said where it is found
        except Unavailable as error:
            self._failed(error)
            return
        self._answered()
        for key in corrupt:
            self._corrupt.pop((fingerprint, key), None)

    def write_back_soon(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> None:
        """Do `write_back` in the background; above 64 pending ones the shared cache is left out."""
        pairs = list(pairs)
        self._l1.put_many(fingerprint, pairs)
        if pairs and len(self._write_backs) < _WRITE_BACKS_PENDING:
            task = asyncio.create_task(self.write_back(fingerprint, pairs))
            self._write_backs.add(task)
            task.add_done_callback(self._write_backs.discard)

    async def drain(self) -> None:
        """Wait until nothing is being computed or written back."""
        await self._flights.drain()
        if self._write_backs:
            await asyncio.gather(*self._write_backs)

    async def clear(self, fingerprint: str | None = None) -> int:
        """Drop all entries (of one spec) from the shared cache, and all of this process' L1; return how many.

        Raises:
            Unavailable: The shared cache failed; some entries may be gone.
        """
        self._l1.clear()
        return await self._reader.clear(fingerprint)

    async def scan_page(self, cursor: int) -> tuple[int, list[EntryName]]:
        """See `TokenReader.scan_page`."""
        return await self._reader.scan_page(cursor)

    async def delete(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """Drop entries from the shared cache; `clear_memory` drops them from L1."""
        return await self._reader.delete(fingerprint, passage_keys)

    async def epoch(self) -> str | None:
        """Return the shared cache's epoch.

        Raises:
            Unavailable: The shared cache failed.
        """
        return await self._reader.epoch()

    def clear_memory(self) -> None:
        """Drop this process' L1 only: what the shared cache holds is asked for anew."""
        self._l1.clear()

    async def used_bytes(self) -> int:
        """Return the memory that the shared cache takes.

        Raises:
            Unavailable: It does not answer.
        """
        return await self._reader.used_bytes()

    @property
    def tokens_in_memory(self) -> int:
        """Token ids that this process holds."""
        return self._l1.tokens

    async def ping(self) -> None:
        """Return when the shared cache answers.

        Raises:
            Unavailable: It does not.
        """
        await self._reader.ping()

    def count_query(self, *, is_hit: bool) -> None:
        """Count one answered question.

        Args:
            is_hit: Whether all of its passages, and at least one, came from the cache.
        """
        self._counter.record_query(is_hit=is_hit)

    def stats(self) -> LookupStats:
        """Return this process' counts since its start or the last reset; like `reset_stats` from any thread."""
        return self._counter.snapshot(l1_entries=len(self._l1), l1_bytes=self._l1.used_bytes)

    def reset_stats(self) -> None:
        """Start counting anew; Prometheus counters go on."""
        self._counter = LookupCounter()

    async def close(self) -> None:
        """Finish what runs in the background and release connections."""
        await self.drain()
        await self._reader.close()

    async def _read(self, fingerprint: str, passage_keys: list[bytes]) -> tuple[list[Found], int]:
        """Read from the shared cache; return what was found and the number of failed calls."""
        unavailable: list[Found] = [MissReason.UNAVAILABLE] * len(passage_keys)
        if not self._circuit.allows():
            return unavailable, 0
        try:
            found = await self._reader.read(fingerprint, passage_keys)
        except Unavailable as error:
            self._failed(error)
            return unavailable, 1
        self._answered()
        return found, 0

    def _failed(self, error: Unavailable) -> None:
        self._counter.record_error()
        if self._circuit.record_failure():
            logger.warning("cache.unavailable", error=str(error))

    def _answered(self) -> None:
        if self._circuit.record_success():
            logger.info("cache.available")
