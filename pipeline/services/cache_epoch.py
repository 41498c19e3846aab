"""Noticing that the cache has lost what it was given: flushed, replaced, restarted from an old file, or too small.

The cache and SQL hold the same random mark. Where they differ, or the cache has none, entries stored before are gone.
A new mark goes to the cache first and to SQL second, with SQL's clock as the epoch's beginning. Then a mark that is
equal in both proves that nothing was lost since that beginning, because whatever empties the cache takes the mark with
it. Whoever dies between the two, or races with another, leaves marks that differ, and the next look mends that.
"""

import secrets
from dataclasses import dataclass
from enum import StrEnum

import orjson
from sqlalchemy import Connection, select

from pipeline.database import Database, now_ms
from pipeline.jobs.installation import CACHE_EPOCH_AT, get_fact, set_fact
from pipeline.services.refilling import CACHE_EVICTED_AT, Debt, owe_everywhere
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache import CacheServer, TokenWriter

_log = get_logger(__name__)

CACHE_EPOCH = "cache_epoch"
"""Fact: the mark that the cache must hold."""
_CACHE_SEEN = "cache_seen"
"""Fact: process, evictions and time of the last look, JSON."""

_NOTE_MS = 10_000
"""A look that found nothing new is noted this often."""
_UNSYNCED_MS = 60_000
"""A server that dies may lose what it was given this long before it was last seen, jobs under way included."""


class Verdict(StrEnum):
    """What one look at the cache means."""

    WHOLE = "whole"
    """It holds what it was given."""
    NEW = "new"
    """This installation has never marked a cache."""
    LOST = "lost"
    """It was flushed or replaced: nothing stored before is to be believed."""
    EVICTED = "evicted"
    """It dropped some entries: nobody knows which."""
    RESTARTED = "restarted"
    """It came back with its file: what it was given last may be missing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the server found."""

    run_id: str
    evicted_keys: int
    at: int
    """The database's clock in ms."""

    def to_json(self) -> str:
        """Write it."""
        return orjson.dumps([self.run_id, self.evicted_keys, self.at]).decode()

    @classmethod
    def from_json(cls, text: str) -> "Seen":
        """Read what `to_json` wrote."""
        return cls(*orjson.loads(text))


def judge(mark: str | None, server: CacheServer, *, epoch: str | None, seen: Seen | None) -> Verdict:
    """Return what a look means.

    Args:
        mark: What the cache holds.
        server: What it says about itself.
        epoch: What SQL says that it must hold; None if there never was a mark.
        seen: The look before; None if there was none.
    """
    if epoch is None:
        return Verdict.NEW
    restarted = seen is not None and seen.run_id != server.run_id
    evicted_before = 0 if restarted or seen is None else seen.evicted_keys
    if mark in (None, epoch) and server.evicted_keys > evicted_before:
        return Verdict.EVICTED  # the mark, too, may have been evicted
    if mark != epoch:
        return Verdict.LOST
    if restarted:
        return Verdict.RESTARTED if server.append_only else Verdict.EVICTED
    return Verdict.WHOLE


def watch_cache(database: Database, cache: TokenWriter) -> Verdict:
    """Look at the cache once and record in SQL what that means; refills are left to `pursue_refills`.

    Raises:
        Unavailable: Cache or database did not answer, which says nothing about what the cache holds.
    """
    mark, server = cache.epoch(), cache.server()
    with database.read() as connection:
        now = connection.execute(select(now_ms())).scalar_one()
        epoch, noted = get_fact(connection, CACHE_EPOCH), get_fact(connection, _CACHE_SEEN)
    before = None if noted is None else Seen.from_json(noted)
    seen = Seen(server.run_id, server.evicted_keys, now)
    verdict = judge(mark, server, epoch=epoch, seen=before)
    if verdict is not Verdict.WHOLE:
        say = _log.info if verdict is Verdict.NEW else _log.warning
        say("cache.not_whole", verdict=verdict.value, evicted_keys=server.evicted_keys)
    match verdict:
        case Verdict.NEW:
            _begin_first_epoch(database, cache)
        case Verdict.LOST:
            renew_epoch(database, cache, refill=True)
        case Verdict.EVICTED:
            _note_eviction(database, seen)
            if mark is None and epoch is not None:
                cache.set_epoch(epoch)
        case Verdict.RESTARTED:
            _distrust_latest(database, seen, before)
        case Verdict.WHOLE if before is not None and now - before.at < _NOTE_MS:
            return verdict
    cache.seal()
    with database.write() as connection:
        set_fact(connection, _CACHE_SEEN, seen.to_json())
    return verdict


def renew_epoch(database: Database, cache: TokenWriter, *, refill: bool) -> None:
    """Begin a new epoch: nothing stored before it is believed any more.

    Args:
        database: Where facts are.
        cache: Where entries are.
        refill: Whether everything is to be filled again.

    Raises:
        Unavailable: Cache or database did not answer; the marks may differ now, and the next look begins an epoch.
    """
    epoch = secrets.token_hex(16)
    cache.set_epoch(epoch)
    with database.write() as connection:
        _record_epoch(connection, epoch, refill=refill)


def give_up_epoch(database: Database) -> None:
    """Record a mark that no cache holds: the next look at the cache begins an epoch and has everything filled again.

    Raises:
        Unavailable: The database did not answer.
    """
    with database.write() as connection:
        _record_epoch(connection, secrets.token_hex(16), refill=True)


def _record_epoch(connection: Connection, epoch: str, *, refill: bool) -> None:
    now = connection.execute(select(now_ms())).scalar_one()
    set_fact(connection, CACHE_EPOCH, epoch)
    set_fact(connection, CACHE_EPOCH_AT, str(now))
    if refill:
        owe_everywhere(connection, Debt(since=0, before=now, refill=True))


def _begin_first_epoch(database: Database, cache: TokenWriter) -> None:
    """Mark a cache for the first time. There is no sign of a loss: the ledger is believed from its beginning."""
    epoch = secrets.token_hex(16)
    cache.set_epoch(epoch)
    with database.write() as connection:
        set_fact(connection, CACHE_EPOCH, epoch)


def _note_eviction(database: Database, seen: Seen) -> None:
    with database.write() as connection:
        set_fact(connection, CACHE_EVICTED_AT, str(seen.at))


def _distrust_latest(database: Database, seen: Seen, before: Seen | None) -> None:
    """Have filled again what was stored shortly before the restart: it may not have reached the disk."""
    last_seen_at = seen.at if before is None else before.at
    with database.write() as connection:
        owe_everywhere(connection, Debt(since=last_seen_at - _UNSYNCED_MS, before=seen.at, refill=True))
