"""Connections that lookups keep open, so that a query pays for its MGET and for nothing around it.

redis-py's pool, its retries and its clocks around each send and each reply take as long as a whole MGET of 16 entries.
A lookup needs none of them: it is bounded as a whole, and an MGET may be sent twice.

What must stay true: no reply ever reaches another caller. A connection is kept only after a command's whole reply was
read; whatever else happens, a cancelled or timed-out call included, it is closed.
"""

import asyncio
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection


class KeptConnections:
    """Connections of the kind that a client's pool makes, and as many at most, beside those of the pool.

    The one used last is used first. For one event loop.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        self._pool = pool
        self._places = asyncio.Semaphore(pool.max_connections)
        self._idle: list[AbstractConnection] = []
        self._is_closed = False

    async def ask(self, command: bytes) -> Any:
        """Return the reply, its strings as bytes, to a packed command that does no harm when it is sent twice.

        It is sent again, once and over a new connection, where the server had closed the one that was kept. The caller
        bounds the time; more callers than connections wait for each other.

        Raises:
            redis.RedisError: The server cannot be reached, closed the new connection too, or answered with an error.
            OSError: The same, not translated by redis-py.
        """
        async with self._places:
            if self._idle:
                with suppress(redis.ConnectionError):
                    return await self._exchange(self._idle.pop(), command)
            connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's
            connection.socket_timeout = None  # its clocks would cost more than the caller's one
            return await self._exchange(connection, command)

    async def close(self) -> None:
        """Close what is idle now, and what is in use as soon as its reply is read."""
        self._is_closed = True
        while self._idle:
            await self._idle.pop().disconnect()

    async def _exchange(self, connection: AbstractConnection, command: bytes) -> Any:
        try:
            await _prepare(connection)
            await connection.send_packed_command(command, check_health=False)
            reply = await connection.read_response(disable_decoding=True)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if self._is_closed:
            await connection.disconnect()
        else:
            self._idle.append(connection)
        return reply


async def _prepare(connection: AbstractConnection) -> None:
    """Connect a new one; refuse one that was closed, or got what nobody asked for, while it was idle."""
    if not connection.is_connected:
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's
    elif await connection.can_read():
        raise redis.ConnectionError("the connection was closed while it was idle")
