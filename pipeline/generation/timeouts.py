"""How long an engine may take, part by part, and the pacing of a stream by it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from pipeline.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineTimeouts:
    """Seconds for each part of one call."""

    connect_s: float = 2.0
    """For the connection to be made."""
    first_token_s: float = 60.0
    """From sending a prompt to the first sign of its answer: queueing and prefill."""
    between_tokens_s: float = 30.0
    """From one part of a streamed answer to the next."""
    total_s: float = 600.0
    """For the whole answer, streamed or not."""


_END = object()


async def paced(events: AsyncGenerator[T], timeouts: EngineTimeouts) -> AsyncGenerator[T]:
    """Yield what a stream yields, as long as it keeps its times; close it in any case.

    Raises:
        Unavailable: It did not; the message says which time.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + timeouts.total_s
    limit_s, awaited = timeouts.first_token_s, "first token"
    async with aclosing(events):
        while True:
            left_s = end - clock()
            try:
                async with asyncio.timeout(min(limit_s, left_s)):
                    event = await anext(events, _END)
            except TimeoutError as error:
                raise (_late(awaited, limit_s) if limit_s < left_s else _late("end", timeouts.total_s)) from error
            if event is _END:
                return
            yield event  # type: ignore[misc]  # the sentinel is gone
            limit_s, awaited = timeouts.between_tokens_s, "next token"


async def within_total(answer: Awaitable[T], timeouts: EngineTimeouts) -> T:
    """Return an answer that comes as a whole.

    Raises:
        Unavailable: It did not come in time.
    """
    try:
        async with asyncio.timeout(timeouts.total_s):
            return await answer
    except TimeoutError as error:
        raise _late("answer", timeouts.total_s) from error


def _late(awaited: str, limit_s: float) -> Unavailable:
    return Unavailable(f"the engine sent no {awaited} within {limit_s:g} s", service="engine")
