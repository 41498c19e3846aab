"""Entries in Redis or Valkey: the workers' synchronous writer and the read path's asynchronous reader.

What must stay true: a reader never waits longer than its time-out whatever the client was configured with (redis-py's
defaults are 5 s and ten retries), and no reply ever reaches the wrong caller (a cancelled call drops its connection;
the tag over the key would show it).
"""

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Self

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from pipeline.bounded_redis import FAILURES, BoundedAsyncParser, bounded_client
from pipeline.token_cache.batching import MAX_BATCH_BYTES, batches
from pipeline.token_cache.dictionary import Dictionary, no_dictionary
from pipeline.token_cache.keys import EPOCH_KEY, EntryName, entry_key, entry_keys, parse_entry_key
from pipeline.token_cache.marks import EntryRights, split_mark
from pipeline.token_cache.redis_commands import (
    checked_counts,
    checked_values,
    encode_pairs,
    execute_raw,
    key_chunks,
    mget_bytes,
    only_entry_keys,
    packed_mget,
    require_ok,
    scan_options,
    scan_page,
    translated,
    unavailable,
)
from pipeline.token_cache.redis_connections import KeptConnections
from pipeline.token_cache.stores import CacheServer, Found, PassageEntry, decode_found

_CLEARING_S = 5.0
"""Seconds for one page of entries that are dropped."""


class RedisTokenWriter:
    """Implements `TokenWriter`. Build it after fork; safe to share between threads."""

    def __init__(
        self,
        client: "redis.Redis",
        *,
        hmac_key: bytes | None = None,
        ttl_s: int | None = None,
        dictionary_for: Callable[[str], Dictionary] = no_dictionary,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        report: Callable[[str], object] | None = None,
    ) -> None:
        self._client = client
        self._total_s = math.inf
        self._rights = EntryRights(hmac_key, report=report)
        self._hmac_key = hmac_key
        self._ttl_s = ttl_s
        self._dictionary_for = dictionary_for
        self._max_batch_bytes = max_batch_bytes

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        hmac_key: bytes | None = None,
        ttl_s: int | None = None,
        dictionary_for: Callable[[str], Dictionary] = no_dictionary,
        timeout_s: float = 5.0,
        report: Callable[[str], object] | None = None,
    ) -> Self:
        """Build a writer with a client of its own; connects on first use.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            hmac_key: Secret of the deployment, None for plain checksums.
            ttl_s: Life time of written entries; None under policy `none`.
            dictionary_for: Returns the dictionary for entries of a fingerprint.
            timeout_s: Seconds for connecting and for each whole reply; twice that for one batch of commands.
            report: See `EntryRights`.
        """
        client = bounded_client(url, timeout_s=timeout_s, health_check_interval=15)
        writer = cls(client, hmac_key=hmac_key, ttl_s=ttl_s, dictionary_for=dictionary_for, report=report)
        writer._total_s = 2 * timeout_s
        return writer

    def write(self, fingerprint: str, pairs: Iterable[PassageEntry]) -> int:
        """See `TokenWriter.write`: one MSET a batch under policy `none`, one pipeline of SET EX with a life time."""
        encoded = encode_pairs(fingerprint, pairs, self._hmac_key, self._dictionary_for(fingerprint))
        rest = batches(encoded, max_bytes=self._max_batch_bytes)
        first = next(rest, None)
        if first is None:
            return 0  # a deletion has nothing to write: it does not wait for a cache that is away
        self._rights.require(self._mark())
        some = chain((first,), rest)
        return self._write_all(some) if self._ttl_s is None else self._write_expiring(some, self._ttl_s)

    def read(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Found]:
        """See `TokenWriter.read`: MGETs of bounded size."""
        found: list[Found] = []
        for keys in key_chunks(entry_keys(fingerprint, passage_keys)):
            with translated(self._total_s):
                values = checked_values(execute_raw(self._client, "MGET", *keys), len(keys))
            found += decode_found(keys, values, hmac_key=self._hmac_key)
        return found

    def exists(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[bool]:
        """See `TokenWriter.exists`."""
        present: list[bool] = []
        for keys in key_chunks(entry_keys(fingerprint, passage_keys)):
            with translated(self._total_s), self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.exists(key)
                present += [bool(reply) for reply in checked_counts(pipeline.execute(), len(keys))]
        return present

    def scan(self, fingerprint: str | None = None) -> Iterator[EntryName]:
        """See `TokenWriter.scan`."""
        cursor = 0
        while True:
            with translated(self._total_s):
                cursor, keys = self._scan_page(cursor, fingerprint)
            yield from (name for key in keys if (name := parse_entry_key(key)))
            if cursor == 0:
                return

    def delete(self, fingerprint: str, passage_keys: Iterable[bytes]) -> int:
        """See `TokenWriter.delete`."""
        count = 0
        for keys in key_chunks(entry_keys(fingerprint, passage_keys)):
            with translated(self._total_s):
                count += checked_counts([self._client.unlink(*keys)], 1)[0]
        return count

    def expire(self, fingerprint: str, passage_keys: Sequence[bytes], *, ttl_s: int) -> int:
        """See `TokenWriter.expire`."""
        count = 0
        for keys in key_chunks(entry_keys(fingerprint, passage_keys)):
            with translated(self._total_s), self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.expire(key, ttl_s)
                count += sum(bool(reply) for reply in checked_counts(pipeline.execute(), len(keys)))
        return count

    def keep(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """See `TokenWriter.keep`."""
        if self._ttl_s is not None:
            return self.expire(fingerprint, passage_keys, ttl_s=self._ttl_s)
        count = 0
        for keys in key_chunks(entry_keys(fingerprint, passage_keys)):
            with translated(self._total_s), self._client.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.persist(key)
                    pipeline.exists(key)
                count += sum(bool(reply) for reply in checked_counts(pipeline.execute(), 2 * len(keys))[1::2])
        return count

    def clear(self, fingerprint: str | None = None) -> int:
        """See `TokenWriter.clear`."""
        count, cursor = 0, 0
        while True:
            with translated(self._total_s):
                cursor, keys = self._scan_page(cursor, fingerprint)
                if entries := only_entry_keys(keys):
                    count += checked_counts([self._client.unlink(*entries)], 1)[0]
            if cursor == 0:
                return count

    def epoch(self) -> str | None:
        """See `TokenWriter.epoch`."""
        return split_mark(self._mark())[0]

    def set_epoch(self, epoch: str) -> None:
        """See `TokenWriter.set_epoch`."""
        with translated(self._total_s):
            self._client.set(EPOCH_KEY, self._rights.mark(epoch))

    def seal(self) -> None:
        """See `TokenWriter.seal`."""
        epoch, check = split_mark(self._mark())
        if epoch is not None and check is None:
            self.set_epoch(epoch)

    def key_mismatch(self) -> str | None:
        """See `TokenWriter.key_mismatch`."""
        return self._rights.mismatch(self._mark())

    def server(self) -> CacheServer:
        """See `TokenWriter.server`."""
        with translated(self._total_s):
            info = self._client.info("everything")
            (keys,) = checked_counts([self._client.dbsize()], 1)
            return CacheServer(
                keys=keys,
                used_bytes=int(info.get("used_memory", 0)),
                max_bytes=int(info.get("maxmemory", 0)),
                evicted_keys=int(info.get("evicted_keys", 0)),
                eviction_policy=str(info.get("maxmemory_policy", "")),
                append_only=bool(info.get("aof_enabled", 0)),
                run_id=str(info.get("run_id", "")),
            )

    def ping(self) -> None:
        """See `TokenWriter.ping`."""
        with translated(self._total_s):
            self._client.ping()

    def close(self) -> None:
        """See `TokenWriter.close`."""
        self._client.close()

    def _mark(self) -> bytes | None:
        with translated(self._total_s):
            return checked_values([execute_raw(self._client, "GET", EPOCH_KEY)], 1)[0]

    def _write_all(self, some: Iterable[list[tuple[str, bytes]]]) -> int:
        """Store each batch by one MSET, and encode the next one while the server works on it."""
        count, pool = 0, self._client.connection_pool
        with translated():  # as long as the entries are many
            connection: Any = pool.get_connection()
            try:
                is_awaited = False
                for batch in some:
                    connection.send_command("MSET", *(part for pair in batch for part in pair))
                    if is_awaited:
                        require_ok(connection.read_response())
                    is_awaited = True
                    count += len(batch)
                if is_awaited:
                    require_ok(connection.read_response())
            except BaseException:
                connection.disconnect()  # a reply that nobody has read must not reach the next caller
                raise
            finally:
                pool.release(connection)
        return count

    def _write_expiring(self, some: Iterable[list[tuple[str, bytes]]], ttl_s: int) -> int:
        count = 0
        for batch in some:
            with translated(self._total_s), self._client.pipeline(transaction=False) as pipeline:
                for key, value in batch:
                    pipeline.set(key, value, ex=ttl_s)
                pipeline.execute()
            count += len(batch)
        return count

    def _scan_page(self, cursor: int, fingerprint: str | None) -> tuple[int, list[bytes]]:
        reply = execute_raw(self._client, "SCAN", cursor, *scan_options(fingerprint))
        return scan_page(reply)


class RedisTokenReader:
    """Implements `TokenReader` over a client of the caller's, or one of its own (`connect`). For one event loop."""

    def __init__(
        self,
        client: "redis.asyncio.Redis",
        *,
        hmac_key: bytes | None = None,
        dictionary_for: Callable[[str], Dictionary] = no_dictionary,
        timeout_s: float = 0.25,
        max_batch_bytes: int = MAX_BATCH_BYTES,
        report: Callable[[str], object] | None = None,
    ) -> None:
        self._client = client
        self._rights = EntryRights(hmac_key, report=report)
        self._connections = KeptConnections(client.connection_pool, timeout_s=timeout_s)
        self._hmac_key = hmac_key
        self._dictionary_for = dictionary_for
        self._timeout_s = timeout_s
        self._max_batch_bytes = max_batch_bytes
        self._owns_client = False

    @classmethod
    def connect(
        cls,
        url: str,
        *,
        hmac_key: bytes | None = None,
        dictionary_for: Callable[[str], Dictionary] = no_dictionary,
        timeout_s: float = 0.25,
        max_connections: int = 64,
        report: Callable[[str], object] | None = None,
    ) -> Self:
        """Build a reader with a client of its own; connects on first use.

        Args:
            url: `redis://`, `rediss://` or `unix://`.
            hmac_key: Secret of the deployment, None for plain checksums.
            dictionary_for: Returns the dictionary for entries of a fingerprint.
            timeout_s: Seconds for one call from beginning to end, connecting and waiting for a connection included.
            max_connections: More concurrent lookups than that wait for a connection; as many again are for write-backs.
            report: See `EntryRights`.
        """
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            parser_class=BoundedAsyncParser,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
        )
        client = redis.asyncio.Redis.from_pool(pool)
        reader = cls(client, hmac_key=hmac_key, dictionary_for=dictionary_for, timeout_s=timeout_s, report=report)
        reader._owns_client = True
        return reader

    async def read(self, fingerprint: str, passage_keys: Sequence[bytes]) -> list[Found]:
        """See `TokenReader.read`: one MGET."""
        if not passage_keys:
            return []
        keys = entry_keys(fingerprint, passage_keys)
        try:
            values = await self._connections.values(packed_mget(keys), keys=len(keys), max_bytes=mget_bytes(len(keys)))
        except FAILURES as error:
            raise unavailable(error) from error
        return decode_found(keys, values, hmac_key=self._hmac_key)

    async def write_back(
        self, fingerprint: str, pairs: Iterable[PassageEntry], *, ttl_s: int, replace: Collection[bytes] = ()
    ) -> None:
        """See `TokenReader.write_back`: SET NX EX, for corrupt values SET XX KEEPTTL before it."""
        self._rights.require(await self._mark())
        corrupt = {entry_key(fingerprint, key) for key in replace}
        encoded = encode_pairs(fingerprint, pairs, self._hmac_key, self._dictionary_for(fingerprint))
        for batch in batches(encoded, max_bytes=self._max_batch_bytes):
            with translated():
                async with asyncio.timeout(self._timeout_s), self._client.pipeline(transaction=False) as pipeline:
                    for key, value in batch:
                        if key in corrupt:
                            pipeline.set(key, value, xx=True, keepttl=True)
                        pipeline.set(key, value, nx=True, ex=ttl_s)
                    await pipeline.execute()

    async def clear(self, fingerprint: str | None = None) -> int:
        """See `TokenReader.clear`."""
        count, cursor = 0, 0
        while True:
            with translated():
                async with asyncio.timeout(_CLEARING_S):
                    reply = await execute_raw(self._client, "SCAN", cursor, *scan_options(fingerprint))
                    cursor, keys = scan_page(reply)
                    if entries := only_entry_keys(keys):
                        count += checked_counts([await self._client.unlink(*entries)], 1)[0]
            if cursor == 0:
                return count

    async def used_bytes(self) -> int:
        """See `TokenReader.used_bytes`."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                info = await self._client.info("memory")
        return int(info.get("used_memory", 0))

    async def scan_page(self, cursor: int) -> tuple[int, list[EntryName]]:
        """See `TokenReader.scan_page`."""
        with translated():
            cursor, keys = scan_page(await execute_raw(self._client, "SCAN", cursor, *scan_options(None)))
        return cursor, [name for key in keys if (name := parse_entry_key(key))]

    async def delete(self, fingerprint: str, passage_keys: Sequence[bytes]) -> int:
        """See `TokenReader.delete`."""
        count = 0
        for keys in key_chunks(entry_keys(fingerprint, passage_keys)):
            with translated():
                count += await self._client.unlink(*keys)
        return count

    async def epoch(self) -> str | None:
        """See `TokenReader.epoch`."""
        return split_mark(await self._mark())[0]

    async def _mark(self) -> bytes | None:
        with translated():
            async with asyncio.timeout(self._timeout_s):
                return checked_values([await execute_raw(self._client, "GET", EPOCH_KEY)], 1)[0]

    async def ping(self) -> None:
        """See `TokenReader.ping`."""
        with translated():
            async with asyncio.timeout(self._timeout_s):
                await execute_raw(self._client, "PING")

    async def close(self) -> None:
        """Close the connections of lookups, and a client of its own; a caller's client stays open."""
        await self._connections.close()
        if self._owns_client:
            await self._client.aclose(close_connection_pool=True)
