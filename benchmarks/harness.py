"""How things are measured: both sides in turn, several times, the median and how far the others were from it."""

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psutil

SEED = 20_240_229
"""Of everything that is drawn."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One quantity, measured several times."""

    values: tuple[float, ...]
    unit: str

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    def per(self, other: "Measured") -> float:
        """Return how many times the other one this is, by the medians."""
        return self.median / other.median

    def scaled(self, convert: Callable[[float], float], unit: str) -> "Measured":
        """Return the same in another unit."""
        return Measured(tuple(convert(value) for value in self.values), unit)


def rate(size: float, seconds: Measured, unit: str) -> Measured:
    """Return what size in those times comes to in a second."""
    return seconds.scaled(lambda value: size / value, unit)


def in_turn(sides: Mapping[str, Callable[[], float]], *, rounds: int, unit: str = "s") -> dict[str, Measured]:
    """Measure all sides once a round, in an order that turns around every round, so that drift falls on all alike.

    Args:
        sides: What to measure by name; each does its work once and returns what it came to.
        rounds: How often.
        unit: Of what they return.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for _ in range(rounds):
        for name in order:
            values[name].append(sides[name]())
        order.reverse()
    return {name: Measured(tuple(found), unit) for name, found in values.items()}


def seconds(work: Callable[[], object]) -> float:
    """Return how long something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


@dataclass(slots=True)
class MemoryWatch:
    """Samples the resident memory of processes by name, and keeps the most of each name."""

    find: Callable[[], Mapping[str, Sequence[int]]]
    """Returns process ids by name; asked at every look, since children come and go."""
    interval_s: float = 0.2
    peaks_mb: dict[str, float] = field(default_factory=dict)
    """Of the largest process of each name."""
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        self._look()

    def _run(self) -> None:
        while not self._ended.wait(self.interval_s):
            self._look()

    def _look(self) -> None:
        for name, pids in self.find().items():
            for pid in pids:
                size_mb = _resident_mb(pid)
                self.peaks_mb[name] = max(self.peaks_mb.get(name, 0.0), size_mb)


def _resident_mb(pid: int) -> float:
    try:
        return float(psutil.Process(pid).memory_info().rss) / 1e6
    except psutil.NoSuchProcess:
        return 0.0


@contextmanager
def spent(into: list[float]) -> Iterator[None]:
    """Append the seconds that a block takes."""
    began = time.perf_counter()
    yield
    into.append(time.perf_counter() - began)
