"""Processes that want the processor all the time, at the priority of everything else or a higher one."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.processes import Process, Processes

_BURN = [sys.executable, "-S", "-E", "-c", "while True: pass"]


@contextmanager
def burners(processes: Processes, count: int, *, cpus: set[int] | None = None) -> Iterator[list[Process]]:
    """Burn for the life of a `with` block.

    Args:
        processes: Starts them, and ends them if all else fails.
        count: How many.
        cpus: Where; by default everywhere.
    """
    started = [processes.start(_BURN, name="burner") for _ in range(count)]
    for each in started:
        with suppress(PermissionError):  # an ordinary user burns at ordinary priority
            os.setpriority(os.PRIO_PROCESS, each.pid, -5)
        if cpus is not None:
            os.sched_setaffinity(each.pid, cpus)
    try:
        yield started
    finally:
        for each in started:
            each.send(signal.SIGKILL)
            each.wait()
