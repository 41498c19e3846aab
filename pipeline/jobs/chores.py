"""What the dispatcher that leads does now and then beside dispatching: in a thread of its own.

A chore may wait for a cache that hangs, or walk over a corpus; jobs are published all the while.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.errors import Unavailable
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_LOOK_S = 0.25
"""Seconds between two looks at what is due."""


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to do again and again. Doing it twice, or in two processes at once, must be harmless."""

    name: str
    every_s: float
    """Seconds from one beginning to the next."""
    do: Callable[[], object]


class ChoreThread:
    """Does chores while `leads` says so; what one of them raises is logged and keeps no other one from its turn."""

    def __init__(
        self, chores: Sequence[Chore], *, leads: Callable[[], bool], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._chores = tuple(chores)
        self._leads = leads
        self._clock = clock
        self._begun_at = dict.fromkeys((chore.name for chore in chores), float("-inf"))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chores", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self, *, timeout_s: float = 2.0) -> None:
        """Stop after the chore at hand, and wait for that a little; to be cut off in the middle of one is harmless."""
        self._over.set()
        self._thread.join(timeout=timeout_s)

    def do_due(self) -> list[str]:
        """Do what is due now, if this process leads; return the names."""
        if not self._leads():
            return []
        due = [chore for chore in self._chores if self._clock() - self._begun_at[chore.name] >= chore.every_s]
        for chore in due:
            self._begun_at[chore.name] = self._clock()
            self._do(chore)
        return [chore.name for chore in due]

    def _run(self) -> None:
        while not self._over.wait(_LOOK_S):
            self.do_due()

    def _do(self, chore: Chore) -> None:
        try:
            chore.do()
        except Unavailable as error:
            _log.warning("chore.unavailable", chore=chore.name, service=error.service, error=str(error))
        except Exception:  # noqa: BLE001  # the other chores must go on after whatever one met
            _log.exception("chore.failed", chore=chore.name)
