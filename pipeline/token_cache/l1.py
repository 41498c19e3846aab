"""Decoded entries in the process' own memory, bounded in bytes; the least recently used go first."""

from collections.abc import Iterable, Sequence

import cachebox
import numpy as np

from pipeline.token_cache.codec import Entry
from pipeline.token_cache.stores import PassageEntry

ENTRY_OVERHEAD_BYTES = 768
"""Measured upper bound of what Python needs for one entry beside its ids: array, key, and its place in the table."""


class L1Cache:
    """Entries by spec and passage. Safe to share between threads.

    Entries are immutable and content addressed, so nothing in here is ever stale, whatever happens to Redis.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: cachebox.LRUCache[bytes, Entry] = cachebox.LRUCache(max_bytes, getsizeof=_entry_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """Bytes held, overhead included; never above the bound."""
        return self._entries.current_size()

    def get_many(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the entry or None for each key, in order."""
        get, spec = self._entries.get, fingerprint.encode()
        return [get(spec + key) for key in passage_keys]

    def put_many(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> None:
        """Keep entries, dropping others as the bound demands; one larger than the whole bound is not kept."""
        insert, spec, max_bytes = self._entries.insert, fingerprint.encode(), self._max_bytes
        for key, entry in pairs:
            if size_bytes(entry) <= max_bytes:
                insert(spec + key, _alone(entry) if isinstance(entry.ids.base, np.ndarray) else entry)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def _alone(entry: Entry) -> Entry:
    """Return an entry whose ids keep no larger array in memory, as a part of one would."""
    whole = entry.ids.base
    if whole is not None and whole.nbytes > entry.ids.nbytes:
        ids = entry.ids.copy()
        ids.flags.writeable = False  # else the entry would copy them once more
        return Entry(ids, entry.right_safe)
    return entry


def size_bytes(entry: Entry) -> int:
    """Bytes that one entry occupies here."""
    return entry.ids.nbytes + ENTRY_OVERHEAD_BYTES


def _entry_bytes(_name: bytes, entry: Entry) -> int:
    return size_bytes(entry)
