"""What a process and its descendants had of a stretch of time, as the kernel counted it.

A starved process and a deadlocked one both say nothing. The kernel knows the difference: for every thread it counts how
long it ran, and how long it was ready to run and had no processor. Who waits for a disk is not at fault either.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NS = 1e-9
_READY, _DISK = "R", "D"


@dataclass(frozen=True, slots=True)
class ThreadTime:
    """One thread, from its start until now."""

    used_s: float
    """It ran."""
    waited_s: float | None
    """It was ready to run and did not; None where the kernel does not count that."""
    state: str
    """As in `/proc/PID/stat`: R is ready or running, D waits for a disk, S sleeps, T is stopped."""


@dataclass(frozen=True, slots=True)
class Portion:
    """What of a stretch of time was a process's own."""

    busy_s: float
    """Some thread of it ran."""
    idle_s: float
    """It could have run, and no thread of it wanted to."""


def divide(passed_s: float, before: Mapping[int, ThreadTime], now: Mapping[int, ThreadTime]) -> Portion:
    """Return a process's own time between two readings; what its most starved thread waited is not its own.

    Args:
        passed_s: Seconds between the readings, as far as they counted for whoever asks.
        before: The first reading.
        now: The second one; threads may have come and gone.
    """
    start = ThreadTime(0.0, 0.0, "")
    pairs = [(before.get(number, start), thread) for number, thread in now.items()]
    waited_s = max((_waited_s(old, new, passed_s) for old, new in pairs), default=0.0)
    own_s = max(0.0, passed_s - waited_s)
    busy_s = min(own_s, sum(max(0.0, new.used_s - old.used_s) for old, new in pairs))
    return Portion(busy_s, own_s - busy_s)


def read_threads(pid: int) -> dict[int, ThreadTime]:
    """Return the threads of a process and of its descendants by number; none of a process that has ended."""
    threads: dict[int, ThreadTime] = {}
    waiting = [pid]
    while waiting:
        for task in _entries(_PROC / str(waiting.pop()) / "task"):
            try:
                threads[int(task.name)] = _read(task)
                waiting.extend(int(child) for child in (task / "children").read_text().split())
            except OSError:  # it has just ended
                continue
    return threads


def _waited_s(old: ThreadTime, new: ThreadTime, passed_s: float) -> float:
    if new.state == _DISK:
        return passed_s
    counted_s = (new.waited_s or 0.0) - (old.waited_s or 0.0)
    # A wait is counted when it is over: one that goes on shows by the state only.
    return max(counted_s, passed_s - (new.used_s - old.used_s)) if new.state == _READY else counted_s


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it has just ended
        return []


def _read(task: Path) -> ThreadTime:
    # The name, in parentheses, may hold anything.
    state = (task / "stat").read_text().rpartition(")")[2].split()[0]
    try:
        used, waited, _ = (task / "schedstat").read_text().split()
    except FileNotFoundError:
        return ThreadTime(0.0, None, state)
    return ThreadTime(int(used) * _NS, int(waited) * _NS, state)
