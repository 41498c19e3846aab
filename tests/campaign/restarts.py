"""Which processes of the stack went though no fault had ended them: a restart of what was only slow is one too many.

A full disk ends who writes to memory that is a file (SIGBUS: SQLite's index of its log, the vector engine's segments).
Nothing in a process can prevent that, so it is expected while the disk is full.
"""

import re
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.campaign.stack import CampaignStack

_LOOK_S = 0.1
_SAYS_S = 0.3
_SIGBUS = f"signal {int(signal.SIGBUS)}"
_FULL_FOR_S = 10.0
"""How long after a full disk a process may still be noticed to have ended by it."""


@dataclass(slots=True)
class Restarts:
    """Looks at the supervisor's children all the time, and brings `up` back where it ended by itself."""

    stack: CampaignStack
    say: Callable[[str], None]
    needless: list[str] = field(default_factory=list)
    """Processes that went although no fault had touched them."""
    expected: int = 0
    """Those that a fault had killed or stopped."""
    _seen: dict[int, str] = field(default_factory=dict)
    _up: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="restarts", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=300)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            if not self.stack.planned.is_set() and not self.stack.is_lost:
                self._look()

    def _look(self) -> None:
        up = self.stack.up
        if up is None:
            return
        if not up.is_running and not self.stack.planned.is_set():
            self._note(f"up ended by itself (exit code {up.exit_code}): {up.log()[-600:]}")
            self.stack.ensure_up()
            return
        found = self.stack.supervised()
        if self.stack.planned.is_set() or not up.is_running:
            return
        if up.pid != self._up:
            self._up, self._seen = up.pid, {}
        gone = self._seen.keys() - found.keys()
        for pid in gone:
            role = self._seen[pid]
            if pid in self.stack.touched or (self._disk_was_full() and _SIGBUS in self._said_about(role)):
                self.expected += 1
            else:
                self._note(f"{role} (pid {pid}) ended, and no fault had touched it; said: {self._said_about(role)}")
        self._seen = found

    def _note(self, sentence: str) -> None:
        stamped = f"{time.strftime('%H:%M:%S')} {sentence}"
        self.needless.append(stamped)
        self.say(f"NEEDLESS {stamped}")

    def _disk_was_full(self) -> bool:
        return time.monotonic() - self.stack.disk_full_at < _FULL_FOR_S

    def _said_about(self, role: str) -> str:
        """What `up` said last about a process; it says so at about the time when it is seen here to be gone."""
        up = self.stack.up
        if up is None:
            return "nothing"
        self._over.wait(_SAYS_S)
        said = re.findall(rf"^{role} (?:ended|does not|claims|cannot).*$", up.log(), re.MULTILINE)
        return str(said[-1]) if said else "nothing"
