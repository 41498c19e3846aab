"""Redis servers whose replies are input: each reply bounded in total time and bytes, each failure said in our words.

redis-py's time-outs are for each read, so that a reply which drips, or has no end, holds its caller for ever. The
parsers here give every read only what is left of the reply's time, or of the call's (`within`), and take no more than
a reply can have.
"""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.connection import DefaultParser as AsyncDefaultParser
from redis.backoff import NoBackoff
from redis.connection import DefaultParser
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from pipeline.errors import Unavailable
from pipeline.telemetry.logs import get_logger

MAX_REPLY_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of one reply to a worker: twice what 512 of the largest entries have."""
MAX_ASYNC_REPLY_BYTES: Final = 1024 * 1024
"""Most bytes of one reply that is parsed on an event loop by redis-py: names of one SCAN, and what writes answer."""

FAILURES: Final = (redis.RedisError, OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""Whatever a client makes of a server: what it raises, and what its readers make of a reply of another type."""

_SAID_CHARS = 200
_BULKS = frozenset({b"$", b"=", b"!"})
_LISTS = frozenset({b"*", b"%", b"~", b">", b"|"})
_MAX_ELEMENTS = 100_000
_MAX_LINE_BYTES = 64 * 1024
_REFUSALS = MappingProxyType(
    {
        "OutOfMemoryError": "is full and refuses writes",
        "ReadOnlyError": "is a read-only replica",
        "AuthenticationError": "refuses the user or password of its URL",
        "AuthenticationWrongNumberOfArgsError": "refuses the user or password of its URL",
        "NoPermissionError": "does not permit this to the user of its URL",
        "BusyLoadingError": "is still loading its data",
        "MaxConnectionsError": "has no connection left",
    }
)
_log = get_logger(__name__)


class _Call(threading.local):
    """When the call under way in this thread must be over, by the monotonic clock."""

    until = math.inf


_CALL = _Call()


@contextmanager
def within(total_s: float) -> Iterator[None]:
    """Bound all replies together that this thread waits for in a block, however many there are."""
    before, _CALL.until = _CALL.until, min(_CALL.until, time.monotonic() + total_s)
    try:
        yield
    finally:
        _CALL.until = before


def bounded_client(url: str, *, timeout_s: float, **options: Any) -> redis.Redis:
    """Return a synchronous client that waits `timeout_s` at most for connecting and for each whole reply.

    Args:
        url: `redis://`, `rediss://` or `unix://`.
        timeout_s: Seconds.
        options: More arguments of the client.

    Raises:
        ValueError: The URL is none.
    """
    client: redis.Redis = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
        parser_class=BoundedParser,
        **options,
    )
    return client


def failed(error: BaseException, *, service: str, name: str) -> Unavailable:
    """Return what a failure means to callers, and log what the server said.

    Args:
        error: One of `FAILURES`.
        service: `cache` or `broker`.
        name: What a sentence calls it.
    """
    if not isinstance(error, redis.ConnectionError | redis.TimeoutError | OSError):  # nobody said anything then
        _log.warning("redis.failed", service=service, error=type(error).__name__, said=str(error)[:_SAID_CHARS])
    return Unavailable(f"{name} {_what(error)}", service=service)


def _what(error: BaseException) -> str:
    if (refusal := _REFUSALS.get(type(error).__name__)) is not None:
        return refusal
    match error:
        case redis.TimeoutError() | TimeoutError():
            return "did not answer in time"
        case redis.ConnectionError() | OSError():
            return "cannot be reached, or closed the connection"
        case redis.InvalidResponse():
            return "sent a reply that is none to what was asked"
        case redis.ResponseError():
            return "refused a command"
        case _:
            return "sent a reply of another type than was asked for"


class _Measure:
    """Walks over the frames of replies as they arrive, before a parser makes room for as much as they state."""

    def __init__(self) -> None:
        self._rest = b""
        self._skipped = 0

    def feed(self, data: bytes) -> None:
        """Take what came.

        Raises:
            redis.InvalidResponse: A frame states more elements or bytes than any reply has, or nothing readable.
        """
        start = min(self._skipped, len(data))
        self._skipped -= start
        data, self._rest = self._rest + data[start:], b""
        position = 0
        while position < len(data):
            end = data.find(b"\r\n", position)
            if end < 0:
                self._rest = data[position:]
                if len(self._rest) > _MAX_LINE_BYTES:
                    raise redis.InvalidResponse("a reply that states no length")
                return
            position = end + 2 + _bulk_bytes(data[position : position + 1], data[position + 1 : end])
        self._skipped = position - len(data)


def _bulk_bytes(kind: bytes, stated: bytes) -> int:
    """Return how many bytes follow a frame's first line."""
    if kind not in _BULKS and kind not in _LISTS:
        return 0
    try:
        size = int(stated)
    except ValueError as error:
        raise redis.InvalidResponse("a reply that states no length") from error
    if size > (_MAX_ELEMENTS if kind in _LISTS else MAX_REPLY_BYTES):
        raise redis.InvalidResponse("a reply larger than any that was asked for")
    return size + 2 if kind in _BULKS and size >= 0 else 0


class BoundedParser(DefaultParser):  # type: ignore[misc,valid-type]  # redis-py chooses it by what is installed
    """redis-py's parser, with a clock and a measure for each whole reply."""

    _until: float | None = None
    _room = 0

    def on_connect(self, connection: Any, **options: Any) -> None:
        """Begin anew; see redis-py."""
        self._measure = _Measure()
        super().on_connect(connection, **options)

    def read_response(self, *args: Any, **options: Any) -> Any:
        """Return a reply; see redis-py."""
        if self._until is not None:  # called by itself, behind what the server said unasked
            return super().read_response(*args, **options)
        limit_s = math.inf if self._socket_timeout is None else self._socket_timeout
        self._until, self._room = min(_CALL.until, time.monotonic() + limit_s), MAX_REPLY_BYTES
        try:
            return super().read_response(*args, **options)
        finally:
            self._until = None

    def read_from_socket(self, *_args: Any, **_options: Any) -> bool:
        """Read what has come, or wait for it as long as there is time."""
        sock, reader = self._sock, self._reader
        if sock is None or reader is None:
            raise redis.ConnectionError("the connection is closed")
        left_s = math.inf if self._until is None else self._until - time.monotonic()
        if left_s <= 0:
            raise redis.TimeoutError("the time for a whole reply is over")
        try:
            sock.settimeout(None if left_s == math.inf else left_s)
            size = sock.recv_into(self._buffer)
        except TimeoutError as error:
            raise redis.TimeoutError("there was no whole reply in time") from error
        except OSError as error:
            raise redis.ConnectionError(f"the connection broke ({type(error).__name__})") from error
        finally:
            sock.settimeout(self._socket_timeout)
        if size == 0:
            raise redis.ConnectionError("the server closed the connection")
        self._room -= size
        if self._room < 0:
            raise redis.InvalidResponse(f"a reply of more than {MAX_REPLY_BYTES:,} bytes")
        self._measure.feed(bytes(memoryview(self._buffer)[:size]))
        reader.feed(self._buffer, 0, size)
        return True


class BoundedAsyncParser(AsyncDefaultParser):  # type: ignore[misc,valid-type]  # as above
    """The same for an event loop, where `asyncio.timeout` is the clock."""

    _room = MAX_ASYNC_REPLY_BYTES

    def on_connect(self, connection: Any) -> None:
        """Begin anew; see redis-py."""
        self._measure = _Measure()
        super().on_connect(connection)

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """Return a reply; see redis-py."""
        self._room = MAX_ASYNC_REPLY_BYTES
        return await super().read_response(*args, **options)

    async def read_from_socket(self) -> bool:
        """Read what has come, or wait for it."""
        received = await self._stream.read(self._read_size)
        if not received:
            raise redis.ConnectionError("the server closed the connection")
        self._room -= len(received)
        if self._room < 0:
            raise redis.InvalidResponse(f"a reply of more than {MAX_ASYNC_REPLY_BYTES:,} bytes")
        self._measure.feed(received)
        self._reader.feed(received)
        return True
