"""Waiting for a state with a deadline: the only place where tests let time pass."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_FIRST_PAUSE_S = 0.005
_LONGEST_PAUSE_S = 0.1


class DeadlineExceededError(AssertionError):
    """The awaited state did not come in time."""


def eventually(
    predicate: Callable[[], T],
    *,
    timeout_s: float = 60.0,
    describe: str | Callable[[], str] = "",
    tolerate: tuple[type[Exception], ...] = (),
    pause_s: float = _FIRST_PAUSE_S,
) -> T:
    """Call `predicate` until it returns something truthy, and return that.

    Args:
        predicate: Looked at at least once, and once more after the deadline.
        timeout_s: Seconds after which waiting is given up.
        describe: Says what was awaited; a callable is asked only on failure (for a log's tail, for instance).
        tolerate: Errors that mean "not yet"; every other one is raised at once.
        pause_s: First pause between two looks; longer for one that costs much.

    Raises:
        DeadlineExceededError: It never was truthy; names the last value or error.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        late = time.monotonic() >= deadline
        last: object
        try:
            value = predicate()
        except tolerate as error:
            last = error
        else:
            if value:
                return value
            last = value
        if late:
            raise DeadlineExceededError(_failure(last, timeout_s=timeout_s, describe=describe))
        time.sleep(pause_s)
        pause_s = max(pause_s, min(pause_s * 1.5, _LONGEST_PAUSE_S))


async def eventually_async(
    predicate: Callable[[], Awaitable[T]],
    *,
    timeout_s: float = 60.0,
    describe: str | Callable[[], str] = "",
    tolerate: tuple[type[Exception], ...] = (),
) -> T:
    """Do what `eventually` does with a predicate that is awaited; the event loop keeps running."""
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        late = time.monotonic() >= deadline
        last: object
        try:
            value = await predicate()
        except tolerate as error:
            last = error
        else:
            if value:
                return value
            last = value
        if late:
            raise DeadlineExceededError(_failure(last, timeout_s=timeout_s, describe=describe))
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


def _failure(last: object, *, timeout_s: float, describe: str | Callable[[], str]) -> str:
    what = describe() if callable(describe) else describe
    return f"{what or 'the predicate'} did not become true within {timeout_s:g} s; last: {last!r}"
