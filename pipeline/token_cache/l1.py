"""Decoded entries in the process' own memory, bounded in bytes; the least recently used go first."""

import threading
from collections.abc import Iterable, Sequence

import numpy as np
from cachetools import LRUCache

from pipeline.token_cache.codec import Entry
from pipeline.token_cache.stores import PassageEntry

ENTRY_OVERHEAD_BYTES = 768
"""Measured upper bound of what Python needs for one entry beside its ids: array, key, and the cache's three tables."""


class L1Cache:
    """Entries by spec and passage. Safe to share between threads.

    Entries are immutable and content addressed, so nothing in here is ever stale, whatever happens to Redis.
    """

    def __init__(self, max_bytes: int) -> None:
        self._entries: LRUCache[tuple[str, bytes], Entry] = LRUCache(max_bytes, getsizeof=size_bytes)
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """Bytes held, overhead included; never above the bound."""
        return int(self._entries.currsize)

    def get_many(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the entry or None for each key, in order."""
        entries = self._entries
        with self._lock:
            try:
                return [entries[fingerprint, key] for key in passage_keys]
            except KeyError:  # asked for all at once, hits take two thirds of the time
                return [entries.get((fingerprint, key)) for key in passage_keys]

    def put_many(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> None:
        """Keep entries, dropping others as the bound demands; one larger than the whole bound is not kept."""
        max_ids_bytes = self._entries.maxsize - ENTRY_OVERHEAD_BYTES
        with self._lock:
            for key, entry in pairs:
                if entry.ids.nbytes <= max_ids_bytes:
                    self._entries[fingerprint, key] = _alone(entry)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()


def _alone(entry: Entry) -> Entry:
    """Return an entry whose ids keep no larger array in memory, as a part of one would."""
    whole = entry.ids.base
    if isinstance(whole, np.ndarray) and whole.nbytes > entry.ids.nbytes:
        ids = entry.ids.copy()
        ids.flags.writeable = False  # else the entry would copy them once more
        return Entry(ids, entry.right_safe)
    return entry


def size_bytes(entry: Entry) -> int:
    """Bytes that one entry occupies here."""
    return entry.ids.nbytes + ENTRY_OVERHEAD_BYTES
