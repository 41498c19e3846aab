"""Does each process do its work? Asked in a thread for each: a hung one answers late and must not delay the others."""

import threading
import time

from pipeline.cli.stack.child import Child
from pipeline.errors import Unavailable

_FAST_S = 0.1
_SLOW_S = 5.0


class Pulse:
    """What is known about one child's work since its last start."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self._seen = (0.0, 0.0)  # of which start, and when it was last seen to work
        self._wedged = 0.0  # of which start it was seen to be wedged
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
    def is_wedged(self) -> bool:
        """Whether it runs and leaves its work undone."""
        return self.child.runs and self._wedged == self.child.started_at

    @property
    def silent_s(self) -> float:
        """Seconds since it was last seen to work, or since its start; 0 while it is down."""
        if not self.child.runs:
            return 0.0
        start, seen_at = self._seen
        return time.monotonic() - (seen_at if start == self.child.started_at else self.child.started_at)

    def _run(self) -> None:
        while not self._over.wait(_SLOW_S if self.works else _FAST_S):
            if self.child.runs:
                self._ask(self.child.started_at)

    def _ask(self, start: float) -> None:
        try:
            works = self.child.service.works(self.child)
            if works and self.child.service.wedged(self.child):
                self._wedged = start
        except Unavailable:
            # Nobody can tell. Restarting it would not help whoever did not answer.
            works = self.works
        if works:
            self._seen = (start, time.monotonic())
