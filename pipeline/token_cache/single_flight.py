"""Lets concurrent callers share one computation of the same key, however the callers end."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K")
V = TypeVar("V")

Compute: TypeAlias = Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]
"""Computes values of keys together; what it cannot compute is not in its answer."""


class SingleFlight(Generic[K, V]):
    """Computations of one event loop, by key.

    A computation runs in a task of its own: a caller that is cancelled takes nothing from the others. One that fails,
    or leaves a key out, is not believed by those who only waited for it: they compute their keys themselves.
    """

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[Mapping[K, V]]] = {}

    async def run(self, keys: Iterable[K], compute: Compute[K, V]) -> dict[K, V]:
        """Return the values of `keys`, computing together those that nobody computes right now.

        Raises:
            Exception: What `compute` raises.
        """
        wanted = list(dict.fromkeys(keys))
        shared = {key: self._flights[key] for key in wanted if key in self._flights}
        mine = [key for key in wanted if key not in shared]
        own = self._launch(mine, compute) if mine else None
        values: dict[K, V] = {}
        if shared:
            await asyncio.wait(set(shared.values()))
            values.update((key, value) for key, flight in shared.items() if (value := _value(flight, key)) is not None)
        if own is not None:
            values.update(await asyncio.shield(own))
        if unanswered := [key for key in shared if key not in values]:
            values.update(await asyncio.shield(self._launch(unanswered, compute)))
        return values

    async def drain(self) -> None:
        """Wait for all computations that still run."""
        if self._flights:
            await asyncio.wait(set(self._flights.values()))

    def _launch(self, keys: Sequence[K], compute: Compute[K, V]) -> "asyncio.Task[Mapping[K, V]]":
        async def fly() -> Mapping[K, V]:
            return await compute(keys)

        flight = asyncio.create_task(fly())
        self._flights.update(dict.fromkeys(keys, flight))
        flight.add_done_callback(lambda done: self._land(keys, done))
        return flight

    def _land(self, keys: Sequence[K], flight: "asyncio.Task[Mapping[K, V]]") -> None:
        for key in keys:
            if self._flights.get(key) is flight:
                del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # marks it as seen: every caller may have been cancelled


def _value(flight: "asyncio.Task[Mapping[K, V]]", key: K) -> V | None:
    """The value a finished computation of somebody else has for a key, None if it failed or left it out."""
    if flight.cancelled() or flight.exception() is not None:
        return None
    return flight.result().get(key)
