"""What a shared cache of entries must do, for workers (synchronous) and for the read path (asynchronous).

Both sides see the same keys and bytes. `tests/contract/test_token_cache.py` holds every implementation to this.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from pipeline.token_cache.codec import Entry, decode_entries
from pipeline.token_cache.keys import EntryName


class MissReason(StrEnum):
    """Why a passage has no entry."""

    ABSENT = "absent"
    """Nothing is stored under its key."""
    CORRUPT = "corrupt"
    """Something is, but no entry that was written for this key (or under this deployment's secret)."""
    UNAVAILABLE = "unavailable"
    """The cache did not answer, or is not asked for a moment because it just did not answer."""


Found: TypeAlias = Entry | MissReason
"""Result of reading one key."""

PassageEntry: TypeAlias = tuple[bytes, Entry]
"""A passage key (16 bytes) and its entry."""


def decode_found(keys: Sequence[str], values: Sequence[bytes | None], *, hmac_key: bytes | None) -> list[Found]:
    """Return what was read under Redis keys, each as an entry or the reason why it is none."""
    return [
        entry if isinstance(entry, Entry) else MissReason.ABSENT if entry is None else MissReason.CORRUPT
        for entry in decode_entries(keys, values, hmac_key=hmac_key)
    ]


@dataclass(frozen=True, slots=True)
class CacheServer:
    """What the cache says about itself."""

    keys: int
    """Keys of the database, foreign ones included."""
    used_bytes: int
    """Memory in use."""
    max_bytes: int
    """`maxmemory`; 0 is no limit."""
    evicted_keys: int
    """Keys dropped for want of memory since the server's start: a rise means coverage is unknown."""
    eviction_policy: str
    """`maxmemory-policy`."""
    append_only: bool
    """Whether entries survive a restart."""
    run_id: str = ""
    """Of the server's process: random, new with every start."""


class TokenWriter(Protocol):
    """The workers' and operators' side. Every method raises `Unavailable(service="cache")` when the cache fails."""

    def write(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> int:
        """Store entries unconditionally, with the policy's life time, and return how many.

        What was there is replaced, its expiry too: an entry that a query wrote back becomes a worker's entry.
        `pairs` is consumed in batches bounded in bytes. When it raises, any of them may have been stored.

        Raises:
            KeyMismatchError: This process signs entries otherwise than the cache's mark says; nothing was stored.
        """

    def read(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Found]:
        """Return an entry, `ABSENT` or `CORRUPT` for each key, in order."""

    def exists(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[bool]:
        """Whether something is stored, for each key; says nothing about its bytes."""

    def scan(self, fingerprint: str | None = None) -> Iterator[EntryName]:
        """Iterate over the names of all entries (of one spec), some perhaps twice, in constant memory."""

    def delete(self, fingerprint: str, passage_keys: Iterable[bytes]) -> int:
        """Drop entries and return how many there were."""

    def expire(self, fingerprint: str, passage_keys: Sequence[bytes], *, ttl_s: int) -> int:
        """Let entries end after `ttl_s` seconds unless they are written again; return how many there were."""

    def keep(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """Give entries the life time that `write` gives; return how many there were."""

    def clear(self, fingerprint: str | None = None) -> int:
        """Drop all entries (of one spec) and nothing else; return how many."""

    def epoch(self) -> str | None:
        """Return the epoch, None when the cache was flushed or replaced."""

    def set_epoch(self, epoch: str) -> None:
        """Store the epoch, without expiry, with a check of this process' entry key (see `marks`)."""

    def seal(self) -> None:
        """Add the key check to the mark of an earlier version; any other mark stays as it is."""

    def key_mismatch(self) -> str | None:
        """Return in a sentence why this process may not write entries here; None if it may."""

    def server(self) -> CacheServer:
        """Return memory, evictions and policy."""

    def ping(self) -> None:
        """Return when the cache answers."""

    def close(self) -> None:
        """Release connections; twice is fine."""


class TokenReader(Protocol):
    """The read path's side: bounded in time, never retried. Raises `Unavailable(service="cache")` on failure."""

    async def read(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Found]:
        """Return an entry, `ABSENT` or `CORRUPT` for each key, in order, in one round trip."""

    async def write_back(
        self, fingerprint: str, pairs: Iterable[PassageEntry], *, ttl_s: int, replace: Collection[bytes] = ()
    ) -> None:
        """Store entries that were missing, for `ttl_s` seconds, unless something is there by now.

        Args:
            fingerprint: Of the spec.
            pairs: What was computed.
            ttl_s: Life time in seconds.
            replace: Passage keys that were read as corrupt: their bytes are replaced, their expiry (or that they
                have none, as a worker's entries) stays.

        Raises:
            KeyMismatchError: This process signs entries otherwise than the cache's mark says; nothing was stored.
        """

    async def clear(self, fingerprint: str | None = None) -> int:
        """Drop all entries (of one spec) and nothing else; return how many. Not bounded by the read time-out."""

    async def used_bytes(self) -> int:
        """Return the memory that the cache takes, whatever else it holds included."""

    async def scan_page(self, cursor: int) -> tuple[int, list[EntryName]]:
        """Return some names of entries and where to go on; begins at 0, and 0 is the end."""

    async def delete(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """Drop entries and return how many there were."""

    async def epoch(self) -> str | None:
        """Return the cache's epoch, None when it has none."""

    async def ping(self) -> None:
        """Return when the cache answers."""

    async def close(self) -> None:
        """Release connections; twice is fine."""
