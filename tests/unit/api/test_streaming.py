"""Streams of events: silence is filled, and whoever makes an answer learns that it is over."""

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from api.streaming import event, while_connected, with_pings
from pipeline.services.presenting import json_line

pytestmark = pytest.mark.anyio


class Script:
    """Yields until it is told to wait, and remembers its end."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.closed = False

    async def run(self) -> AsyncGenerator[bytes]:
        try:
            yield b"one"
            await self.go_on.wait()
            yield b"two"
        finally:
            self.closed = True


def request(*messages: Message) -> Request:
    """A request whose further messages are these, and then nothing for ever."""
    coming = iter(messages)

    async def receive() -> Message:
        for message in coming:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    return Request({"type": "http"}, receive)


async def test_silence_is_filled_with_comments() -> None:
    script = Script()
    chunks = with_pings(script.run(), every_s=0.01)
    assert await anext(chunks) == b"one"
    for _ in range(3):
        assert (await anext(chunks)).startswith(b":")
    script.go_on.set()
    rest = [chunk async for chunk in chunks]
    assert list(itertools.dropwhile(lambda chunk: chunk.startswith(b":"), rest)) == [b"two"]
    assert script.closed


async def test_what_fails_between_events_is_raised() -> None:
    async def failing() -> AsyncGenerator[bytes]:
        yield b"one"
        raise ValueError("broken")

    chunks = with_pings(failing(), every_s=1)
    assert await anext(chunks) == b"one"
    with pytest.raises(ValueError, match="broken"):
        await anext(chunks)


async def test_closing_the_stream_ends_what_makes_it() -> None:
    script = Script()
    chunks = with_pings(script.run(), every_s=10)
    await anext(chunks)
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert script.closed


async def test_work_goes_on_while_its_caller_is_there_and_is_cancelled_when_not() -> None:
    script = Script()

    async def work() -> bytes:
        return [chunk async for chunk in script.run()][-1]

    script.go_on.set()
    assert await while_connected(request(), work()) == b"two"

    script = Script()
    leaves: tuple[Message, ...] = ({"type": "http.request", "body": b""}, {"type": "http.disconnect"})
    with pytest.raises(ClientDisconnect):
        await while_connected(request(*leaves), work())
    assert script.closed


async def test_errors_of_the_work_are_its_own() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await while_connected(request(), fail())


async def test_an_event_is_three_lines_whatever_its_text_holds() -> None:
    written = event("token", json_line({"text": "a\u2028b\u2029c\x85d\r\ne"}))
    assert written.decode().splitlines() == [
        "event: token",
        'data: {"text":"a\\u2028b\\u2029c\\u0085d\\r\\ne"}',
        "",
    ]
