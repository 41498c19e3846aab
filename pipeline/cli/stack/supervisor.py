"""Starts the processes, keeps them running, stops them. One thread: children are tied to it."""

import threading
import time
from collections.abc import Callable, Sequence

from pipeline.cli.stack.child import Child
from pipeline.cli.stack.pulse import Pulse
from pipeline.errors import ConfigurationError

SILENT_S = 60.0
"""A process that runs and was not seen to work for this long is restarted."""

_TICK_S = 0.05
_TRIM_LOGS_S = 60.0
_START_S = 120.0
_START_CRASHES = 4
_SERVICES_GRACE_S = 6.0
_STORES_GRACE_S = 2.0


class Supervisor:
    """Watches children until it is told to stop."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        stop: threading.Event,
        say: Callable[[str], None],
        silent_s: float = SILENT_S,
    ) -> None:
        """Remember what is needed; nothing is started.

        Args:
            children: In the order of their start.
            stop: Set by signals; looked at all the time.
            say: Takes a sentence for the operator.
            silent_s: How long a process may be silent.
        """
        self._children = list(children)
        self._pulses = [Pulse(child) for child in self._children]
        self._stop = stop
        self._say = say
        self._silent_s = silent_s
        self._trimmed_at = time.monotonic()

    def start(self, *, also: Callable[[], bool], report: Callable[[float, str], None]) -> bool:
        """Start everything at once and wait until all of it works; return False if told to stop before.

        What uses a store waits for it by itself, and takes longer to load than a store to open.

        Args:
            also: What must hold besides, asked when every process works.
            report: Takes the share of processes that work, and the names of those that are awaited.

        Raises:
            ConfigurationError: One of them does not start.
            OSError: The machine has no room for a file or a process.
        """
        for child in self._children:
            child.start()
        for pulse in self._pulses:
            pulse.begin()
        deadline = time.monotonic() + _START_S
        while not self._stop.wait(_TICK_S):
            self.tend()
            awaited = [pulse.child for pulse in self._pulses if not pulse.works]
            names = ", ".join(child.service.label for child in awaited) or "a first query"
            report(1 - len(awaited) / len(self._children), f"waiting for {names}")
            if not awaited and also():
                return True
            hopeless = next((child for child in self._children if child.crashes >= _START_CRASHES), None)
            if hopeless is not None or time.monotonic() > deadline:
                raise _not_started(hopeless or next(iter(awaited), None))
        return False

    def watch(self) -> None:
        """Restart what crashes, is silent or is wedged, until told to stop."""
        while not self._stop.wait(_TICK_S):
            self.tend()
            self._end_stuck()
            if time.monotonic() - self._trimmed_at >= _TRIM_LOGS_S:
                self._trimmed_at = time.monotonic()
                for child in self._children:
                    child.trim_log()

    def tend(self) -> None:
        """Look at every child once: note which ended, start which are due."""
        for child in self._children:
            code = child.notice_end()
            if code is not None:
                self._announce(child, f"ended ({describe_exit(code)})")
            elif child.is_due:
                self._restart(child)

    def stop_all(self) -> None:
        """End every process: services first, then the stores they use; within about nine seconds."""
        for pulse in self._pulses:
            pulse.end()
        for are_stores, grace_s in ((False, _SERVICES_GRACE_S), (True, _STORES_GRACE_S)):
            ending = [child for child in self._children if child.service.is_store is are_stores]
            for child in ending:
                child.terminate()
            deadline = time.monotonic() + grace_s
            for child in ending:
                child.stop_before(deadline)

    def _restart(self, child: Child) -> None:
        try:
            child.start()
        except OSError as error:
            self._announce(child, f"cannot be started ({error.strerror})")

    def _end_stuck(self) -> None:
        for pulse in self._pulses:
            if pulse.is_wedged or pulse.silent_s > self._silent_s:
                why = "claims nothing although jobs wait" if pulse.is_wedged else "does not answer"
                pulse.child.kill()
                self._announce(pulse.child, f"{why} and was ended")

    def _announce(self, child: Child, what: str) -> None:
        pause_s = max(0.0, child.starts_at - time.monotonic())
        self._say(f"{child.service.label} {what}; it starts again in {pause_s:.1f} s, its log is {child.log}")


def describe_exit(code: int) -> str:
    """Return an exit code in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def _not_started(child: Child | None) -> ConfigurationError:
    if child is None:
        return ConfigurationError(f"all processes run, but the API answers no query after {_START_S:g} s")
    return ConfigurationError(f"{child.service.label} does not start; {child.log} ends with: {child.last_words()}")
