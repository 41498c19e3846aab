"""Checks of the broker and the cache: two servers, neither of which may drop what it was given."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.bounded_redis import FAILURES, bounded_client, failed, within
from pipeline.database import Database
from pipeline.errors import ConfigurationError, Unavailable
from pipeline.services.diagnosis.findings import Finding
from pipeline.services.diagnosis.redis_writes import WriteProbe
from pipeline.services.inspection import list_coverage
from pipeline.settings import MIB, Settings

_TIMEOUT_S = 2.0
_BYTES_PER_TOKEN = 3
_BYTES_PER_ENTRY = 160
"""Key, header and the server's own bookkeeping: a generous guess."""
_NO_EVICTION = "noeviction"
_NEARLY_FULL = 0.9
_FULL = 0.99
"""Shares of its limit; a server that refuses what is too much stays a little below it."""


@dataclass(frozen=True, slots=True)
class RedisServer:
    """What a server says about itself."""

    run_id: str
    """Random, new with every start: equal ones are one process."""
    version: str
    eviction_policy: str
    max_bytes: int
    """0: no limit."""
    used_bytes: int
    evicted_keys: int
    is_append_only: bool


def inspect_server(url: str, *, service: str) -> RedisServer:
    """Ask a Redis or Valkey for its facts.

    Raises:
        ConfigurationError: The URL is none.
        Unavailable: It did not answer.
    """
    try:
        client = bounded_client(url, timeout_s=_TIMEOUT_S)
    except ValueError as error:
        raise ConfigurationError(f"FOREFILL_{service.upper()}_URL is no Redis URL: {error}") from error
    try:
        with client, within(_TIMEOUT_S):
            facts = client.info()
            return RedisServer(
                run_id=str(facts.get("run_id", "")),
                version=str(facts.get("valkey_version") or facts.get("redis_version", "")),
                eviction_policy=str(facts.get("maxmemory_policy", "")),
                max_bytes=int(facts.get("maxmemory", 0)),
                used_bytes=int(facts.get("used_memory", 0)),
                evicted_keys=int(facts.get("evicted_keys", 0)),
                is_append_only=bool(facts.get("aof_enabled", 0)),
            )
    except FAILURES as error:
        raise failed(error, service=service, name=service) from error


def check(settings: Settings) -> Iterator[Finding]:
    """Yield what holds for both servers."""
    servers: dict[str, RedisServer] = {}
    for service, url in (("broker", settings.broker_url), ("cache", settings.cache_url)):
        try:
            servers[service] = inspect_server(url, service=service)
        except (ConfigurationError, Unavailable) as error:
            remedy = f"start it, or correct FOREFILL_{service.upper()}_URL"
            yield Finding.fail(service, str(error), remedy=remedy)
    if (broker := servers.get("broker")) is not None:
        yield check_broker(broker)
        yield from _check_writes("broker", settings.broker_url, "workers learn of no job")
    if (cache := servers.get("cache")) is not None:
        yield from check_cache(cache)
        yield from _check_writes("cache", settings.cache_url, "nothing is filled, and changes wait")
    if broker is not None and cache is not None and broker.run_id == cache.run_id:
        yield Finding.fail(
            "broker and cache",
            "are one server: entries and queued jobs compete for its memory",
            remedy="run two servers, and set FOREFILL_BROKER_URL and FOREFILL_CACHE_URL to one each",
        )


def _check_writes(service: str, url: str, consequence: str) -> Iterator[Finding]:
    with contextlib.closing(WriteProbe(url, service=service)) as probe:
        problem = probe.problem()
    if problem is not None:
        remedy = f"mend that on the server, or correct FOREFILL_{service.upper()}_URL"
        yield Finding.fail(f"{service} writes", f"{problem}; {consequence}", remedy=remedy)
    else:
        yield Finding.ok(f"{service} writes", "are taken")


def check_broker(broker: RedisServer) -> Finding:
    """Return whether the broker keeps queued jobs."""
    if broker.eviction_policy == _NO_EVICTION:
        return Finding.ok("broker", f"{broker.version} answers and never evicts")
    remedy = f"set its maxmemory-policy to {_NO_EVICTION}"
    message = f"{broker.version} has maxmemory-policy {broker.eviction_policy}"
    if broker.max_bytes:
        return Finding.fail("broker", f"{message}: it deletes queued jobs when memory is full", remedy=remedy)
    return Finding.warn("broker", f"{message}, harmless only while maxmemory is unlimited", remedy=remedy)


def check_cache(cache: RedisServer) -> Iterator[Finding]:
    """Yield whether the cache keeps entries."""
    limit = f"maxmemory {cache.max_bytes / MIB:,.0f} MiB" if cache.max_bytes else "no memory limit"
    used = f"{cache.version} answers: {cache.used_bytes / MIB:,.1f} MiB used, {limit}, {cache.eviction_policy}"
    if cache.max_bytes and cache.eviction_policy.startswith("allkeys"):
        yield Finding.warn(
            "cache",
            f"{used}: it drops entries when memory is full",
            remedy=f"use {_NO_EVICTION}, or give it more memory",
        )
    elif cache.max_bytes and cache.used_bytes > _NEARLY_FULL * cache.max_bytes:
        level = Finding.fail if cache.used_bytes > _FULL * cache.max_bytes else Finding.warn
        yield level(
            "cache",
            f"{used}: a full cache refuses entries, and changes wait",
            remedy="give it more memory, or run `forefill gc`",
        )
    else:
        yield Finding.ok("cache", used)
    if cache.evicted_keys:
        yield Finding.warn(
            "cache",
            f"{cache.evicted_keys:,} keys were dropped for want of memory since its start",
            remedy="give it more memory; the dispatcher has every corpus verified and filled again",
        )
    if not cache.is_append_only:
        yield Finding.warn(
            "cache",
            "keeps nothing over a restart: queries then tokenize until its entries are back",
            remedy="set appendonly to yes",
        )


def check_room(settings: Settings, database: Database) -> Iterator[Finding]:
    """Yield whether the cache's limit is above what the ledger says that it must hold."""
    try:
        cache = inspect_server(settings.cache_url, service="cache")
    except (ConfigurationError, Unavailable):
        return  # said already
    with database.read() as connection:
        coverage = list_coverage(connection)
    needed = sum(_BYTES_PER_TOKEN * entry.tokens + _BYTES_PER_ENTRY * entry.covered for entry in coverage)
    message = f"about {needed / MIB:,.1f} MiB are needed for every entry"
    if cache.max_bytes and cache.max_bytes < needed:
        yield Finding.fail(
            "cache memory",
            f"{message}, but maxmemory is {cache.max_bytes / MIB:,.1f} MiB",
            remedy=f"set maxmemory to at least {1.25 * needed / MIB:,.0f} MiB",
        )
    else:
        yield Finding.ok("cache memory", message)
