"""How long a process has been silent though it could have spoken: starving is not dying.

A wall clock cannot tell: when eight others want the processor, or the whole machine was stopped for a minute, healthy
processes are late, and a restart only adds to the load. So time counts for a process only as far as it had it.
"""

import time

from pipeline.cli.stack.processor_time import ThreadTime, divide, read_threads

_START_BUSY = 0.1
"""What a second of computing counts while a process starts: loading is progress, but not for ever."""


class OwnTicks:
    """Time as it passed for a loop that ticks: while it was stopped or had no processor, none did."""

    def __init__(self, tick_s: float) -> None:
        """Begin now.

        Args:
            tick_s: Seconds between two ticks of a loop that is not held up.
        """
        self._longest_s = 2 * tick_s
        self._ticked_at = time.monotonic()

    def tick(self) -> float:
        """Return the seconds that count since the last tick."""
        before, self._ticked_at = self._ticked_at, time.monotonic()
        return min(self._longest_s, self._ticked_at - before)


class Silence:
    """The silence of one process."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """Of its own time since it was last heard."""
        self._threads: dict[int, ThreadTime] | None = None
        self._was_heard = True

    def end(self) -> None:
        """Note that it was heard, or is another process now."""
        self.seconds = 0.0
        self._threads = None
        self._was_heard = True

    def count(self, pid: int, passed_s: float, *, starts: bool) -> None:
        """Add what it had of the time since the last call, unless it was heard meanwhile.

        Of a process that is heard often nothing is read.

        Args:
            pid: The process; its descendants count as a part of it.
            passed_s: Seconds since the last call, as far as they counted for the caller.
            starts: Whether it has not been heard since its start.
        """
        if self._was_heard:
            self._was_heard = False
            return
        before, self._threads = self._threads, read_threads(pid)
        if before is not None and self._threads:
            own = divide(passed_s, before, self._threads)
            self.seconds += own.idle_s + own.busy_s * (_START_BUSY if starts else 1.0)
