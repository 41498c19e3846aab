"""Does each process do its work? Asked in a thread for each: a hung one answers late and must not delay the others."""

import threading
import time

from pipeline.cli.stack.child import Child
from pipeline.cli.stack.silence import Silence
from pipeline.errors import Unavailable

ASK_S = 5.0
"""Seconds between two questions to a process that works."""

_FAST_S = 0.1


class Pulse:
    """What is known about one child's work since its last start."""

    def __init__(self, child: Child, *, ask_s: float = ASK_S) -> None:
        """Remember what is needed; nothing is asked.

        Args:
            child: Who is asked.
            ask_s: Seconds between two questions when it works.
        """
        self.child = child
        self._ask_s = ask_s
        self._seen = (0.0, 0.0)  # of which start, and when it was last seen to work
        self._idle = 0.0  # of which start it was seen to leave its work undone
        self._silence, self._idleness = Silence(), Silence()
        self._counted = (0.0, 0.0)  # what was seen when silence was counted last
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"pulse-{child.service.label}", daemon=True)

    def begin(self) -> None:
        """Begin to ask, often until it works and now and then afterwards."""
        self._thread.start()

    def end(self) -> None:
        """Ask no more; a question that is still open is left to itself."""
        self._over.set()

    @property
    def works(self) -> bool:
        """Whether it runs and has been seen to work since it was started."""
        return self.child.runs and self._seen[0] == self.child.started_at

    @property
    def silent_s(self) -> float:
        """Seconds of its own time since it was last seen to work, or since its start; 0 while it is down."""
        return self._silence.seconds if self._is_counted else 0.0

    @property
    def idle_s(self) -> float:
        """Seconds of its own time in which it left its work undone, as far as it is known to; 0 while it is down."""
        return self._idleness.seconds if self._is_counted else 0.0

    @property
    def _is_counted(self) -> bool:
        """Whether what was counted is of the process that runs now."""
        return self.child.runs and self._counted[0] == self.child.started_at

    def count(self, passed_s: float) -> None:
        """Count the time that passed since the last call, as far as it counted for the caller, if it was silent."""
        started_at = self.child.started_at
        known = self._seen if self._seen[0] == started_at else (started_at, 0.0)
        if not self.child.runs or known != self._counted:
            self._silence.end()
        elif not self.works or time.monotonic() - known[1] > 1.5 * self._ask_s:
            self._silence.count(self.child.pid, passed_s, starts=not self.works)
        self._counted = known
        if self.child.runs and self._idle == started_at:
            self._idleness.count(self.child.pid, passed_s, starts=False)
        else:
            self._idleness.end()

    def _run(self) -> None:
        while not self._over.wait(self._ask_s if self.works else min(_FAST_S, self._ask_s)):
            if self.child.runs:
                self._ask(self.child.started_at)

    def _ask(self, start: float) -> None:
        try:
            works = self.child.service.works(self.child)
            self._idle = start if works and self.child.service.wedged(self.child) else 0.0
        except Unavailable:
            # Nobody can tell. Restarting it would not help whoever did not answer.
            works, self._idle = self.works, 0.0
        if works:
            self._seen = (start, time.monotonic())
