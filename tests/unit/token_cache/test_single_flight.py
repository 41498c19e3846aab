"""Callers share computations, and nobody's end hurts another."""

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from pipeline.token_cache.single_flight import SingleFlight
from tests.support.polling import eventually_async

pytestmark = pytest.mark.anyio


class Computation:
    """Doubles numbers once it is let go; notes what it was asked."""

    def __init__(self, *, fails: bool = False, leaves_out: tuple[int, ...] = ()) -> None:
        self.calls: list[list[int]] = []
        self.let_go = asyncio.Event()
        self._fails = fails
        self._leaves_out = leaves_out

    async def __call__(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.calls.append(list(keys))
        await self.let_go.wait()
        if self._fails:
            raise OSError("no text")
        return {key: 2 * key for key in keys if key not in self._leaves_out}

    async def begun(self) -> None:
        async def called() -> bool:
            return bool(self.calls)

        await eventually_async(called)


async def test_concurrent_callers_compute_a_key_once() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    compute = Computation()
    callers = [asyncio.create_task(flights.run(keys, compute)) for keys in ([1, 2], [2, 3, 3], [1, 2, 3])]
    await compute.begun()
    compute.let_go.set()
    assert await asyncio.gather(*callers) == [{1: 2, 2: 4}, {2: 4, 3: 6}, {1: 2, 2: 4, 3: 6}]
    assert compute.calls == [[1, 2], [3]]


async def test_a_later_caller_computes_again() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    compute = Computation()
    compute.let_go.set()
    await flights.run([1], compute)
    await flights.run([1], compute)
    assert compute.calls == [[1], [1]]


async def test_a_cancelled_caller_takes_nothing_from_the_others() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    compute, unused = Computation(), Computation()
    first = asyncio.create_task(flights.run([1], compute))
    await compute.begun()
    second = asyncio.create_task(flights.run([1], unused))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    compute.let_go.set()
    assert await second == {1: 2}
    assert unused.calls == []


async def test_a_failure_is_raised_to_its_caller_and_recomputed_by_the_others() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    failing, sound = Computation(fails=True), Computation()
    sound.let_go.set()
    first = asyncio.create_task(flights.run([1], failing))
    await failing.begun()
    second = asyncio.create_task(flights.run([1], sound))
    failing.let_go.set()
    with pytest.raises(OSError, match="no text"):
        await first
    assert await second == {1: 2}


async def test_a_key_that_somebody_else_left_out_is_computed_by_whoever_waited_for_it() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    without_it, sound = Computation(leaves_out=(2,)), Computation()
    sound.let_go.set()
    first = asyncio.create_task(flights.run([1, 2], without_it))
    await without_it.begun()
    second = asyncio.create_task(flights.run([1, 2], sound))
    without_it.let_go.set()
    assert await first == {1: 2}
    assert await second == {1: 2, 2: 4}
    assert sound.calls == [[2]]


async def test_a_failure_that_nobody_waits_for_any_more_is_silent() -> None:
    flights: SingleFlight[int, int] = SingleFlight()
    failing = Computation(fails=True)
    caller = asyncio.create_task(flights.run([1], failing))
    await failing.begun()
    caller.cancel()
    failing.let_go.set()
    await flights.drain()
    with pytest.raises(asyncio.CancelledError):
        await caller
