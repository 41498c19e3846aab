"""Decoded entries in the process' own memory, bounded in bytes; the least recently used go first."""

from collections.abc import Iterable, Sequence

import cachebox

from pipeline.token_cache.codec import ID_BYTES, Entry
from pipeline.token_cache.stores import PassageEntry

ENTRY_OVERHEAD_BYTES = 320
"""What Python needs for one entry beside its ids: two objects, the key, and its place in the table. Measured: 290."""


class L1Cache:
    """Entries by spec and passage. Safe to share between threads.

    Entries are immutable and content addressed, so nothing in here is ever stale, whatever happens to Redis.
    """

    def __init__(self, max_bytes: int) -> None:
        self._most_packed_bytes = max_bytes - ENTRY_OVERHEAD_BYTES
        self._entries: cachebox.LRUCache[bytes, Entry] = cachebox.LRUCache(max_bytes, getsizeof=size_bytes)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def used_bytes(self) -> int:
        """Bytes held, overhead included; never above the bound."""
        return self._entries.current_size()

    @property
    def tokens(self) -> int:
        """Token ids held."""
        return (self.used_bytes - ENTRY_OVERHEAD_BYTES * len(self)) // ID_BYTES

    def get_many(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Entry | None]:
        """Return the entry or None for each key, in order."""
        get, spec = self._entries.get, fingerprint.encode()
        return [get(spec + key) for key in passage_keys]

    def put_many(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> None:
        """Keep entries, dropping others as the bound demands; one larger than the whole bound is not kept."""
        insert, spec, most = self._entries.insert, fingerprint.encode(), self._most_packed_bytes
        for key, entry in pairs:
            if len(entry.packed) <= most:
                insert(spec + key, entry)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()


def size_bytes(_name: bytes, entry: Entry) -> int:
    """Bytes that one entry occupies here, whatever its name."""
    return len(entry.packed) + ENTRY_OVERHEAD_BYTES
