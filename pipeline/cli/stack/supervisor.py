"""Starts the processes, keeps them running, stops them. One thread: children are tied to it.

Every limit here is in a process's own time (`silence.py`): on a busy machine all takes as long as it takes.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence

from pipeline.cli.stack.child import Child
from pipeline.cli.stack.pulse import ASK_S, Pulse
from pipeline.cli.stack.silence import OwnTicks, Silence
from pipeline.errors import ConfigurationError

SILENT_S = 60.0
"""A process that runs and was not seen to work for this long of its own time is restarted."""

IDLE_S = 30.0
"""So is one that was seen to leave its work undone for this long of its own time."""

_TICK_S = 0.05
_TRIM_LOGS_S = 60.0
_START_S = 120.0
_COUNTS_PER_QUESTION = 5
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
        idle_s: float = IDLE_S,
        ask_s: float = ASK_S,
    ) -> None:
        """Remember what is needed; nothing is started.

        Args:
            children: In the order of their start.
            stop: Set by signals; looked at all the time.
            say: Takes a sentence for the operator.
            silent_s: How much of its own time a process may be silent.
            idle_s: How much of it it may leave its work undone.
            ask_s: Seconds between two questions to a process that works.
        """
        self._children = list(children)
        self._pulses = [Pulse(child, ask_s=ask_s) for child in self._children]
        self._stop = stop
        self._say = say
        self._silent_s, self._idle_s = silent_s, idle_s
        self._ticks, self._uncounted_s, self._count_s = OwnTicks(_TICK_S), 0.0, ask_s / _COUNTS_PER_QUESTION
        self._trimmed_at = time.monotonic()

    def start(self, *, also: Callable[[], bool], report: Callable[[float, str], None]) -> bool:
        """Start everything at once and wait until all of it works; return False if told to stop before.

        What uses a store waits for it by itself, and takes longer to load than a store to open. As long as one of those
        that are awaited gets on, the others may be waiting for it.

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
        unanswered = Silence()
        while not self._stop.wait(_TICK_S):
            self.tend()
            passed_s = self._count()
            if passed_s:
                unanswered.count(os.getpid(), passed_s, starts=True)
            awaited = [pulse for pulse in self._pulses if not pulse.works]
            names = ", ".join(pulse.child.service.label for pulse in awaited) or "a first query"
            report(1 - len(awaited) / len(self._children), f"waiting for {names}")
            if not awaited and also():
                return True
            if awaited:
                unanswered.end()
            silent_s = min((pulse.silent_s for pulse in awaited), default=unanswered.seconds)
            hopeless = next((child for child in self._children if child.crashes >= _START_CRASHES), None)
            if hopeless is not None or silent_s > _START_S:
                raise _not_started(hopeless or next((pulse.child for pulse in awaited), None))
        return False

    def watch(self) -> None:
        """Restart what crashes, is silent or is wedged, until told to stop."""
        while not self._stop.wait(_TICK_S):
            self.tend()
            self._count()
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

    def _count(self) -> float:
        """Let time count for every process, now and then; return the seconds that did, mostly 0."""
        self._uncounted_s += self._ticks.tick()
        if self._uncounted_s < self._count_s:
            return 0.0
        passed_s, self._uncounted_s = self._uncounted_s, 0.0
        for pulse in self._pulses:
            pulse.count(passed_s)
        return passed_s

    def _end_stuck(self) -> None:
        for pulse in self._pulses:
            is_idle = pulse.idle_s > self._idle_s
            if is_idle or pulse.silent_s > self._silent_s:
                why = "claims nothing although jobs wait" if is_idle else "does not answer"
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
