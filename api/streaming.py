"""Server-sent events, ended on both sides when one of them ends.

An answer that is being made costs an engine's time. So whoever leaves is noticed, before the first byte and between
two of them, and what makes the answer is cancelled and closed then.
"""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import anyio
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Send

T = TypeVar("T")

PING_S = 10.0
"""Seconds of silence after which a comment is sent, so that nobody between takes the connection for dead."""

CALLER_LEFT = 499
"""For the log of whoever counts statuses: nobody is there to read it."""

_PING = b": waiting\n\n"


def event(name: str, data: bytes) -> bytes:
    """Return one event.

    Args:
        name: Its type.
        data: JSON on one line, as `json_line` writes it.
    """
    return b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"


class EventStream(StreamingResponse):
    """Sends what a generator yields, and closes it however that ends: done, failed, cancelled, or nobody there."""

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._events = events

    async def stream_response(self, send: Send) -> None:
        """Send the whole response."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._events), aclosing(with_pings(self._events, every_s=PING_S)) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def with_pings(events: AsyncGenerator[bytes], *, every_s: float) -> AsyncGenerator[bytes]:
    """Yield events, and a comment whenever none came for a while."""
    while True:
        upcoming = asyncio.ensure_future(anext(events))
        try:
            while not (await asyncio.wait({upcoming}, timeout=every_s))[0]:
                yield _PING
        finally:
            await _ended(upcoming)
        try:
            chunk = upcoming.result()
        except StopAsyncIteration:
            return
        yield chunk


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what some work comes to; cancel it when its caller leaves.

    Args:
        request: Whose body was read already.
        work: What is done for it.

    Raises:
        ClientDisconnect: The caller left.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(caller_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _ended(leaving)
        await _ended(working)
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


async def caller_left(request: Request) -> None:
    """Return when a caller has left, whose body was read already."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _ended(task: "asyncio.Future[Any]") -> None:
    """Cancel what still runs, and wait until it has cleaned up."""
    if not task.done():
        task.cancel()
        with anyio.CancelScope(shield=True):  # else what is closed next would still be running
            await asyncio.wait({task})
