"""Decoded entries in the process' own memory, bounded in bytes; the least recently used go first."""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from pipeline.token_cache.codec import Entry
from pipeline.token_cache.stores import PassageEntry

ENTRY_OVERHEAD_BYTES = 768
"""Measured upper bound of what Python needs for one entry beside its ids: array, key, and its place in the table."""


class L1Cache:
    """Entries by spec and passage. Safe to share between threads.

    Entries are immutable and content addressed, so nothing in here is ever stale, whatever happens to Redis.

    An `OrderedDict` is the whole policy: `cachetools.LRUCache` keeps two tables more and runs two Python functions for
    each entry, which takes an eighth of a lookup that finds everything here.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._entries: OrderedDict[tuple[str, bytes], Entry] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """Bytes held, overhead included; never above the bound."""
        return self._used_bytes

    def get_many(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the entry or None for each key, in order."""
        found: list[Entry | None] = []
        get, touch = self._entries.get, self._entries.move_to_end
        with self._lock:
            for key in passage_keys:
                name = fingerprint, key
                entry = get(name)
                if entry is not None:
                    touch(name)
                found.append(entry)
        return found

    def put_many(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> None:
        """Keep entries, dropping others as the bound demands; one larger than the whole bound is not kept."""
        entries, max_bytes = self._entries, self._max_bytes
        with self._lock:
            for key, given in pairs:
                entry = _alone(given) if isinstance(given.ids.base, np.ndarray) else given
                entry_bytes = size_bytes(entry)
                if entry_bytes > max_bytes:
                    continue
                name = fingerprint, key
                if name in entries:
                    self._used_bytes -= size_bytes(entries.pop(name))
                while self._used_bytes + entry_bytes > max_bytes:
                    self._used_bytes -= size_bytes(entries.popitem(last=False)[1])
                entries[name] = entry
                self._used_bytes += entry_bytes

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._used_bytes = 0


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
