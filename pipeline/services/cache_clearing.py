"""Dropping entries on purpose: all of them, those of one corpus, or those whose names match a pattern.

Nothing else in the cache is touched. SQL is told before the first entry goes and after the last one has gone, about
every corpus that loses one (see `dropped_entries`).
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Protocol, TypeVar

import numpy as np
from sqlalchemy import Connection, select

from pipeline.database import Database, now_ms
from pipeline.documents.corpora import filled_specs, get_corpus
from pipeline.documents.manifest import unpack_spans
from pipeline.errors import Unavailable
from pipeline.jobs.installation import CACHE_EPOCH_AT, get_fact, set_fact
from pipeline.services.cache_epoch import CACHE_EPOCH, give_up_epoch, renew_epoch
from pipeline.services.dropped_entries import (
    Clearing,
    KeyPrefixes,
    bump,
    disbelieve_all,
    manifest_slices,
    packed_prefixes,
    prefixes_of,
    record_dropped,
    sharing,
)
from pipeline.services.refilling import Debt, kept_corpora, owe, owe_everywhere, pursue_refills
from pipeline.token_cache import EntryName, TokenCache, TokenWriter, entry_key

_BATCH = 1000

T = TypeVar("T")


class EntryDropper(Protocol):
    """What clearing needs of a cache. Every method raises `Unavailable(service="cache")` when it fails."""

    def ping(self) -> None:
        """Return when the cache answers."""

    def scan(self) -> Iterator[EntryName]:
        """Iterate over the names of all entries, some perhaps twice, in constant memory."""

    def delete(self, fingerprint: str, passage_keys: Iterable[bytes]) -> int:
        """Drop entries and return how many there were."""

    def clear(self) -> int:
        """Drop all entries and nothing else; return how many."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """What clearing came to."""

    entries: int
    """Entries that were there."""
    runs: tuple[str, ...]
    """Backfills that fill them again."""


def clear_entries(database: Database, cache: EntryDropper, *, corpus: str | None = None, refill: bool) -> Cleared:
    """Drop entries; queries tokenize by themselves until they are filled again.

    Args:
        database: Knows which passages a corpus serves.
        cache: Where entries are.
        corpus: Only entries of passages it serves; None for all entries. An entry belongs to a text, so another
            corpus that serves the same text loses it, too, and its coverage says so.
        refill: Whether to have them filled again, of every corpus that lost one. Without, documents are filled as they
            change, and by a retokenize.

    Raises:
        NotFound: There is no such corpus.
        Unavailable: Database or cache did not answer; some entries may be gone, and what may be is filled again.
    """
    entries = (
        _clear_all(database, cache, refill=refill)
        if corpus is None
        else _clear_corpus(database, cache, corpus, refill=refill)
    )
    return Cleared(entries, tuple(pursue_refills(database)))


def clear_with_new_key(database: Database, cache: TokenWriter, *, refill: bool) -> Cleared:
    """Drop every entry and mark the cache with this process' entry key: processes with another one write no more.

    Raises:
        Unavailable: As `clear_entries`.
    """
    cache.ping()
    renew_epoch(database, cache, refill=refill)
    return clear_entries(database, cache, refill=refill)


async def clear_shared_cache(cache: TokenCache, database: Database | None, *, pattern: str | None, refill: bool) -> int:
    """Drop entries from the read path's side, and this process' memory of them; return how many there were.

    Args:
        cache: Both tiers.
        database: Whose ledger speaks of this cache; None where none does. A cache that has not the mark which SQL knows
            is another one, and SQL is not told of it.
        pattern: Only entries whose name `ff:FINGERPRINT:PASSAGE_KEY` matches, with `*`, `?` and `[…]`; None for all.
        refill: Whether to have them filled again.

    Raises:
        Unavailable: Database or cache did not answer; some entries may be gone, and what may be is filled again.
    """
    dropper = _FromAnotherThread(cache, asyncio.get_running_loop())
    if database is not None and not await asyncio.to_thread(_is_of, database, await cache.epoch()):
        database = None
    work = _choose(dropper, database, pattern=pattern, refill=refill)
    try:
        return await asyncio.to_thread(work)
    finally:
        cache.clear_memory()


def _choose(
    dropper: EntryDropper, database: Database | None, *, pattern: str | None, refill: bool
) -> Callable[[], int]:
    if database is None:
        return lambda: dropper.clear() if pattern is None else _drop_matching(dropper, pattern, None)
    if pattern is None:
        return lambda: clear_entries(database, dropper, refill=refill).entries
    return lambda: _clear_matching(database, dropper, pattern, refill=refill)


def _is_of(database: Database, epoch: str | None) -> bool:
    with database.read() as connection:
        return get_fact(connection, CACHE_EPOCH) in (None, epoch)


def _clear_all(database: Database, cache: EntryDropper, *, refill: bool) -> int:
    """Drop every entry. Nothing stored before the last one went is believed: the epoch's beginning moves to then."""
    cache.ping()
    with database.write() as connection:
        clearing = Clearing(database, kept_corpora(connection))
        clearing.note(connection)
        _begin_again(connection)
    try:
        with clearing.renewed():
            return cache.clear()
    except Unavailable:
        give_up_epoch(database)  # the next look at the cache has everything filled again
        raise
    finally:
        with database.write() as connection:
            now = _begin_again(connection)
            if refill:
                owe_everywhere(connection, Debt(since=0, before=now, refill=True))
            clearing.close(connection)


def _begin_again(connection: Connection) -> int:
    """Believe nothing that was stored before now. The mark stays: whatever empties the cache takes it along."""
    now = int(connection.execute(select(now_ms())).scalar_one())
    set_fact(connection, CACHE_EPOCH_AT, str(now))
    return now


def _clear_corpus(database: Database, cache: EntryDropper, name: str, *, refill: bool) -> int:
    with database.read() as connection:
        corpus_pk = get_corpus(connection, name).pk
        fingerprints = [spec.fingerprint for spec in filled_specs(connection, corpus_pk)]
    cache.ping()
    served = [packed_prefixes(passages) for rows in manifest_slices(database, corpus_pk) for _, passages in rows]
    keys = np.unique(np.concatenate(served)) if served else prefixes_of(())

    def drop() -> int:
        return sum(
            cache.delete(
                fingerprint, _recorded_of([span.key for _, passages in rows for span in unpack_spans(passages)], keys)
            )
            for rows in manifest_slices(database, corpus_pk)
            for fingerprint in fingerprints
        )

    return _recorded(database, dict.fromkeys(fingerprints, keys), drop, corpus_pk=corpus_pk, refill=refill)


def _clear_matching(database: Database, cache: EntryDropper, pattern: str, *, refill: bool) -> int:
    cache.ping()
    found: dict[str, list[bytes]] = {}
    for name in _matching(cache, pattern):
        found.setdefault(name.fingerprint, []).append(name.passage_key[:8])
    chosen = {fingerprint: prefixes_of(keys) for fingerprint, keys in found.items()}
    return _recorded(database, chosen, lambda: _drop_matching(cache, pattern, chosen), corpus_pk=None, refill=refill)


def _recorded(
    database: Database,
    dropped: Mapping[str, KeyPrefixes],
    drop: Callable[[], int],
    *,
    corpus_pk: int | None,
    refill: bool,
) -> int:
    """Drop entries and record it before and after.

    Args:
        database: Where it is recorded.
        dropped: Which entries go, by fingerprint.
        drop: Does it.
        corpus_pk: A corpus that loses all of its own.
        refill: Whether to have them filled again.
    """
    with database.write() as connection:
        clearing = Clearing(database, sharing(connection, dropped))
        clearing.note(connection)
        if corpus_pk is not None:
            disbelieve_all(connection, corpus_pk)
    try:
        with clearing.renewed():
            record_dropped(clearing, dropped, but=corpus_pk)
            return drop()
    finally:
        bump(clearing)
        record_dropped(clearing, dropped, but=corpus_pk)
        with database.write() as connection:
            now = int(connection.execute(select(now_ms())).scalar_one())
            if corpus_pk is not None:
                owe(connection, [corpus_pk], Debt(since=0, before=now, refill=refill))
            if refill:
                owe(connection, sorted(clearing.touched), Debt(since=now, before=now, refill=True))
            clearing.close(connection)


def _drop_matching(cache: EntryDropper, pattern: str, chosen: Mapping[str, KeyPrefixes] | None) -> int:
    """Drop entries whose names match; with `chosen` only those that were recorded."""
    count = 0
    names = _matching(cache, pattern)
    while some := list(islice(names, _BATCH)):
        for fingerprint in {name.fingerprint for name in some}:
            keys = [name.passage_key for name in some if name.fingerprint == fingerprint]
            count += cache.delete(fingerprint, keys if chosen is None else _recorded_of(keys, chosen.get(fingerprint)))
    return count


def _recorded_of(keys: Sequence[bytes], chosen: KeyPrefixes | None) -> list[bytes]:
    if chosen is None:
        return []
    asked = np.array([int.from_bytes(key[:8], "little") for key in keys], dtype=np.uint64)
    return [key for key, is_recorded in zip(keys, np.isin(asked, chosen).tolist(), strict=True) if is_recorded]


def _matching(cache: EntryDropper, pattern: str) -> Iterator[EntryName]:
    readable = pattern.replace("[^", "[!")  # as Redis says "none of these"
    return (name for name in cache.scan() if fnmatchcase(entry_key(*name), readable))


class _FromAnotherThread:
    """An `EntryDropper` over the read path's cache, whose event loop runs in another thread."""

    def __init__(self, cache: TokenCache, loop: asyncio.AbstractEventLoop) -> None:
        self._cache = cache
        self._loop = loop

    def ping(self) -> None:
        asyncio.run_coroutine_threadsafe(self._cache.ping(), self._loop).result()

    def scan(self) -> Iterator[EntryName]:
        cursor = 0
        while True:
            page = asyncio.run_coroutine_threadsafe(self._cache.scan_page(cursor), self._loop)
            cursor, names = page.result()
            yield from names
            if cursor == 0:
                return

    def delete(self, fingerprint: str, passage_keys: Iterable[bytes]) -> int:
        keys = list(passage_keys)
        return asyncio.run_coroutine_threadsafe(self._cache.delete(fingerprint, keys), self._loop).result()

    def clear(self) -> int:
        return asyncio.run_coroutine_threadsafe(self._cache.clear(), self._loop).result()
