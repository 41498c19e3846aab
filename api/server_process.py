"""One of several serving processes, as its parent sees it."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

from pipeline.cli.stack.backoff import backoff_s, count_crash
from pipeline.cli.stack.silence import Silence
from pipeline.cli.stack.tether import tethered
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

SILENT_S = 30.0
"""A process that serves and does not pulse for this long of its own time is ended: its event loop stands still."""

_PULSES = 64


class ServerProcess:
    """A process, its pipe, and its record. For one thread, to which the process is tied."""

    def __init__(self, environment: Mapping[str, str], *, silent_s: float = SILENT_S) -> None:
        """Remember what it needs; nothing is started.

        Args:
            environment: All its variables.
            silent_s: How much of its own time it may be silent once it serves.
        """
        self._environment = environment
        self._silent_s = silent_s
        self._process: subprocess.Popen[bytes] | None = None
        self._pulse = -1
        self._pulsed = False  # since its start
        self._silence = Silence()
        self._started_at = 0.0
        self._starts_at = 0.0
        self._crashes = 0

    @property
    def pid(self) -> int:
        """Process id; 0 while it is down."""
        return 0 if self._process is None else self._process.pid

    @property
    def serves(self) -> bool:
        """Whether it runs and has begun to serve."""
        return self._process is not None and self._pulsed

    def start(self) -> None:
        """Start it."""
        self._started_at, self._pulsed = time.monotonic(), False
        self._silence.end()
        self._pulse, theirs = os.pipe()
        try:
            os.set_blocking(self._pulse, False)
            self._process = subprocess.Popen(  # noqa: S603  # our own command
                tethered([sys.executable, "-P", "-m", "api.serving", str(theirs)]),
                env=self._environment,
                pass_fds=(theirs,),
                process_group=0,  # a Ctrl-C in the terminal is the parent's to handle
            )
        finally:
            os.close(theirs)

    def tend(self) -> int | None:
        """Look at it once: start it again when that is due; return its exit code if it refused to start."""
        if self._process is None:
            if time.monotonic() >= self._starts_at:
                self.start()
            return None
        self._listen()
        code = self._process.poll()
        if code is not None:
            refused = not self.serves and code > 0
            self._note_end(code)
            return code if refused else None
        if self._silence.seconds > self._silent_s:
            _log.error("api.process_stands_still", pid=self.pid, silent_s=self._silent_s)
            self._process.kill()
        return None

    def count(self, passed_s: float) -> None:
        """Count the time that passed since the last call, as far as it counted for the caller, if it was silent."""
        if self.serves:
            self._silence.count(self.pid, passed_s, starts=False)

    def terminate(self) -> None:
        """SIGTERM, if it runs."""
        if self._process is not None:
            self._process.terminate()

    def stop_before(self, deadline: float) -> None:
        """Wait until it has ended, until a monotonic time, then SIGKILL it; reap it."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
            self._process.kill()
            self._process.wait()
            self._release()

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            if os.read(self._pulse, _PULSES):
                self._pulsed = True
                self._silence.end()

    def _note_end(self, code: int) -> None:
        """Plan its next start."""
        self._crashes = count_crash(self._crashes, lived_s=time.monotonic() - self._started_at)
        pause_s = backoff_s(self._crashes)
        self._starts_at = time.monotonic() + pause_s
        _log.warning("api.process_ended", pid=self.pid, exit_code=code, starts_again_s=pause_s)
        self._release()

    def _release(self) -> None:
        os.close(self._pulse)
        self._process = None
