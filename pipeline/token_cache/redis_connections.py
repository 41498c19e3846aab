"""Connections that lookups keep open, so that a query pays for its MGET and for nothing around it.

redis-py's pool, its retries, its streams and its clocks around each send and each reply take as long as a whole MGET of
16 entries. A lookup needs none of them: it is bounded as a whole, and an MGET may be sent twice. So redis-py connects
and greets (addresses, TLS, users, databases are its own), and from then on the replies come straight to the caller.

What must stay true: no reply ever reaches another caller. A connection is kept only after a command's whole reply was
read and nothing behind it; whatever else happens, a cancelled or timed-out call included, it is closed.
"""

import asyncio
from contextlib import suppress
from typing import NamedTuple

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection

from pipeline.errors import Unavailable
from pipeline.token_cache.redis_replies import MgetReply

_STREAM = "_writer"
"""Where redis-py's connections keep it; that is nowhere promised."""

_UNASKED = "the server said what nobody asked for"


class KeptConnections:
    """Connections of the kind that a client's pool makes, and as many at most, beside those of the pool.

    The one used last is used first. For one event loop.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, *, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._places = asyncio.Semaphore(pool.max_connections)
        self._idle: list[_Connection] = []
        self._is_closed = False

    async def values(self, command: bytes, *, keys: int, max_bytes: int) -> list[bytes | None]:
        """Return the values of so many keys by a packed MGET, which does no harm when it is sent twice.

        It is sent again, once and over a new connection, where the server had closed the one that was kept. More
        callers than connections wait for each other. All that takes the time-out at most.

        Args:
            command: Packed.
            keys: How many are in it.
            max_bytes: Most bytes of a reply.

        Raises:
            redis.RedisError: The server cannot be reached, closed the new connection too, or answered with an error.
            OSError: The same, not translated by redis-py, or the time is over (`TimeoutError`).
        """
        until = asyncio.get_running_loop().time() + self._timeout_s
        asked = _Asked(command, until, keys, max_bytes)
        if self._places.locked():  # a clock costs more than all the rest, so it is set only for what needs one
            async with asyncio.timeout_at(until):
                await self._places.acquire()
        else:
            await self._places.acquire()
        try:
            if self._idle:
                with suppress(redis.ConnectionError):
                    return await self._exchange(self._idle.pop(), asked)
            return await self._exchange(await _connected(self._pool, until), asked)
        finally:
            self._places.release()

    async def close(self) -> None:
        """Close what is idle now, and what is in use as soon as its reply is read."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().close()

    async def _exchange(self, connection: "_Connection", asked: "_Asked") -> list[bytes | None]:
        try:
            reply = await connection.ask(asked)
        except BaseException:
            await connection.close()
            raise
        if self._is_closed or not connection.is_usable:
            await connection.close()
        else:
            self._idle.append(connection)
        return reply


class _Asked(NamedTuple):
    """One command, and what is taken for its reply."""

    command: bytes
    until: float
    """When to stop waiting, by the loop's clock."""
    keys: int
    max_bytes: int


async def _connected(pool: redis.asyncio.ConnectionPool, until: float) -> "_Connection":
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's
    connection.socket_timeout = None  # `until` bounds its greeting
    try:
        async with asyncio.timeout_at(until):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's
            is_clean = not await connection.can_read()
        return _Connection(connection, is_clean=is_clean)
    except BaseException:
        await connection.disconnect(nowait=True)
        raise


class _Connection(asyncio.Protocol):
    """A transport that redis-py connected and has nothing more to do with: one command, one reply, nothing else."""

    def __init__(self, connection: AbstractConnection, *, is_clean: bool) -> None:
        """Take it over.

        Args:
            connection: Connected; every reply to its greeting has been read.
            is_clean: Whether the server has said nothing else.

        Raises:
            Unavailable: This version of redis-py keeps it elsewhere.
        """
        writer = getattr(connection, _STREAM, None)
        if not isinstance(writer, asyncio.StreamWriter):
            raise Unavailable("this version of redis-py keeps its stream elsewhere: no lookups", service="cache")
        self._connection = connection
        self._transport = writer.transport
        self._streams = self._transport.get_protocol()
        self._loop = asyncio.get_running_loop()
        self._asked: asyncio.Future[list[bytes | None]] | None = None
        self._reply = MgetReply(0, max_bytes=0)
        self._until = 0.0
        self._clock: asyncio.TimerHandle | None = None
        self._end: redis.RedisError | None = None if is_clean else redis.ConnectionError(_UNASKED)
        self._transport.set_protocol(self)

    @property
    def is_usable(self) -> bool:
        """Whether it can be asked again, as far as is known."""
        return self._end is None

    async def ask(self, asked: _Asked) -> list[bytes | None]:
        """Return the reply. After any exception the connection is to be closed.

        Raises:
            redis.RedisError: It was closed, while it was idle or meanwhile, got what nobody asked for, or an error.
            TimeoutError: There was no reply.
        """
        if self._end is not None:
            raise self._end
        self._asked, self._until = self._loop.create_future(), asked.until
        self._reply = MgetReply(asked.keys, max_bytes=asked.max_bytes)
        if self._clock is None or self._clock.when() > asked.until:
            self._set_clock()
        try:
            self._transport.write(asked.command)
            return await self._asked
        finally:
            self._asked = None

    async def close(self) -> None:
        """Close it without waiting for the server; twice is fine."""
        if self._clock is not None:
            self._clock.cancel()
        self._transport.set_protocol(self._streams)
        await self._connection.disconnect(nowait=True)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`: a part of the reply, or the last of it."""
        asked = self._asked
        if asked is None or asked.done():
            self._ended(redis.ConnectionError(_UNASKED))
            return
        try:
            values = self._reply.feed(data)
        except redis.ResponseError as error:
            asked.set_exception(error)
            return
        except redis.RedisError as error:
            self._ended(error)
            return
        if values is None:
            return
        asked.set_result(values)
        if self._reply.has_more:
            self._ended(redis.ConnectionError(_UNASKED))

    def eof_received(self) -> None:
        """See `asyncio.Protocol`: the transport closes itself."""
        self._ended(redis.ConnectionError("the server closed the connection"))

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._ended(redis.ConnectionError(f"the connection is lost: {error or 'it was closed'}"))
        self._streams.connection_lost(error)

    def _ended(self, why: redis.RedisError) -> None:
        self._end = self._end or why
        self._transport.close()
        if self._asked is not None and not self._asked.done():
            self._asked.set_exception(self._end)

    def _set_clock(self) -> None:
        """Look at the clock when what is asked now must end: a look for each that is asked would cost 2 µs each."""
        if self._clock is not None:
            self._clock.cancel()
        self._clock = self._loop.call_at(self._until, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._clock = None
        if self._asked is None or self._asked.done():
            return
        if self._loop.time() < self._until:  # of a later command than the one that it was set for
            self._set_clock()
        else:
            self._asked.set_exception(TimeoutError("there was no reply in time"))
