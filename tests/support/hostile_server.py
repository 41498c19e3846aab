"""A server in a thread of its own that answers whatever it is asked in one hostile way, over HTTP or RESP."""

import asyncio
import contextlib
import gzip
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Self, TypeAlias

from tests.support.ports import LOOPBACK

MARKER = "FOREIGN-7f3a"
"""Stands in every text that the server says: none of it may reach a caller."""
MIB = 1024 * 1024
GIANT_BYTES = 80 * MIB
DRIP_S = 0.02

Reply: TypeAlias = Callable[[], AsyncIterator[bytes]]
"""What is sent to one request, part by part; then the connection is closed."""


class HostileServer:
    """Answers on a free port while the context is open."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._answering: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def http_url(self) -> str:
        """Base URL for HTTP."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def redis_url(self) -> str:
        """URL for Redis."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, LOOPBACK, 0), self._loop
        ).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._answering.add(task)
        try:
            if await reader.read(64 * 1024):
                async for part in self._reply():
                    writer.write(part)
                    await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass  # whoever asked has had enough, or the test is over
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            self._answering.discard(task)


async def once(content: bytes) -> AsyncIterator[bytes]:
    """Send everything at once."""
    yield content


async def dripping(content: bytes, *, drop: bytes = b" ") -> AsyncIterator[bytes]:
    """Send a beginning, then a byte now and then, for ever."""
    yield content
    while True:
        await asyncio.sleep(DRIP_S)
        yield drop


async def endless(content: bytes, part: bytes) -> AsyncIterator[bytes]:
    """Send a beginning, then parts as fast as they are taken, for ever."""
    yield content
    while True:
        yield part


async def giant(content: bytes, part: bytes, end: bytes) -> AsyncIterator[bytes]:
    """Send an answer of `GIANT_BYTES`."""
    yield content
    for _ in range((GIANT_BYTES - len(content) - len(end)) // len(part)):
        yield part
    yield end


async def silent() -> AsyncIterator[bytes]:
    """Send nothing and keep the connection."""
    await asyncio.Event().wait()
    yield b""


def head(status: str = "200 OK", *, content_type: str = "application/json", **headers: str | int) -> bytes:
    """Return the head of an HTTP answer."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n{lines}connection: close\r\n\r\n".encode()


def page(status: str, content: bytes, *, content_type: str = "application/json", **headers: str | int) -> Reply:
    """Return a whole HTTP answer."""
    return lambda: once(head(status, content_type=content_type, content_length=len(content), **headers) + content)


def http_replies() -> Iterator[tuple[str, Reply]]:
    """Yield what an HTTP service may do, by name."""
    html = f"<html><body>{MARKER}</body></html>".encode()
    quoted = f'"{MARKER}"'.encode()
    lists = b"[" + b"[]," * (MIB // 2) + b"1]"
    bomb = gzip.compress(b" " * GIANT_BYTES)
    yield "silent", silent
    yield "drips its body", lambda: dripping(head() + b'{"result": ')
    yield "drips its head", lambda: dripping(b"HTTP/1.1 200 OK\r\nx-drip: ", drop=b"x")
    yield "is endless", lambda: endless(head() + b"[", b"1," * 32768)
    yield "is giant", lambda: giant(head(content_length=GIANT_BYTES) + b"[", b'{"a":[1]},' * 6400, b"1]")
    yield "has an endless head", lambda: endless(b"HTTP/1.1 200 OK\r\n", b"x-more: y\r\n" * 1000)
    yield "is many lists", page("200 OK", lists)
    yield "is deep", page("200 OK", b'{"result":' + b"[" * 100_000)
    yield "is deep and whole", page("200 OK", b"[" * 100_000 + b"]" * 100_000)
    yield "redirects", page("307 Temporary Redirect", html, location=f"http://{LOOPBACK}:1/{MARKER}")
    yield "is a page", page("200 OK", html, content_type="text/html")
    yield "is a page that says JSON", page("200 OK", html)
    yield "is a page of an error", page("502 Bad Gateway", html, content_type="text/html")
    yield "is a page of what is not found", page("404 Not Found", html, content_type="text/html")
    yield "is an error without end", lambda: endless(head("500 Internal Server Error"), html * 1000)
    yield "is text", page("200 OK", quoted, content_type="text/plain")
    yield "is a string", page("200 OK", quoted)
    yield "is a number", page("200 OK", b"7")
    yield "is null", page("200 OK", b"null")
    yield "is an empty object", page("200 OK", b"{}")
    yield "is empty", page("200 OK", b"")
    yield "has other types", page("200 OK", _every_field(quoted))
    yield "has other lengths", page("200 OK", _every_field(b"[]"))
    yield "is truncated", lambda: once(head(content_length=1000) + b'{"result": [')
    yield "is a bomb", page("200 OK", bomb, content_encoding="gzip")
    yield "is no HTTP", lambda: once(f"SSH-2.0-{MARKER}\r\n".encode())
    yield "hangs up", lambda: once(b"")


def _every_field(value: bytes) -> bytes:
    """Return an object with every field that one of the adapters reads."""
    names = ("result", "status", "data", "choices", "usage", "content", "tokens", "meta_info", "text", "error")
    fields = ",".join(f'"{name}":{value.decode()}' for name in names)
    return f"{{{fields}}}".encode()


def redis_replies() -> Iterator[tuple[str, Reply]]:
    """Yield what a Redis server may do, by name; a greeting gets the same reply as everything else."""
    error = f"-{MARKER} {MARKER}\r\n".encode()
    yield "silent", silent
    yield "drips its body", lambda: dripping(b"$1000000\r\n", drop=b"x")
    yield "drips its head", lambda: dripping(b"*", drop=b"1")
    yield "drips elements", lambda: dripping(b"*1000\r\n", drop=b"$-1\r\n")
    yield "is endless", lambda: endless(b"$%d\r\n" % 2**40, MARKER.encode() * 1000)
    yield "is endless pushes", lambda: endless(b"", b">1\r\n$1\r\nx\r\n" * 1000)
    yield "is giant", lambda: giant(b"$%d\r\n" % (GIANT_BYTES - 14), b"x" * 65536, b"\r\n")
    yield "is many lists", lambda: once(b"*200000\r\n" + b"*0\r\n" * 200_000)
    yield "is a list of billions", lambda: dripping(b"*1000000000\r\n", drop=b":1\r\n")
    yield "is deep", lambda: once(b"*1\r\n" * 100_000)
    yield "is a number", lambda: once(b":7\r\n" * 100)
    yield "is a string", lambda: once(f"+{MARKER}\r\n".encode() * 100)
    yield "is a map", lambda: once(b"%1\r\n$1\r\na\r\n$1\r\nb\r\n" * 100)
    yield "has other lengths", lambda: once(b"*1\r\n$1\r\nx\r\n" * 100)
    yield "has other types", lambda: once(b"*2\r\n:1\r\n*1\r\n:2\r\n" * 100)
    yield "is an error", lambda: once(error * 100)
    yield "is a page", page("400 Bad Request", f"<html>{MARKER}</html>".encode(), content_type="text/html")
    yield "is truncated", lambda: once(b"$100\r\nabc")
    yield "hangs up", lambda: once(b"")
