"""One process of the stack: how it is started, and how it ends."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.cli.stack.backoff import backoff_s, count_crash
from pipeline.cli.stack.tether import tethered
from pipeline.settings import MIB

_LOG_BYTES = 32 * MIB
_TAIL_BYTES = 4096


def _never(_child: "Child") -> bool:
    return False


def _itself(child: "Child") -> list[int]:
    return [child.pid]


@dataclass(frozen=True, slots=True)
class Service:
    """What a process is."""

    name: str
    """As in the ready line; several of one kind are `kind/name`."""
    command: Sequence[str]
    works: Callable[["Child"], bool]
    """Whether it does its work now; may take seconds and raise `Unavailable` when nobody can tell."""
    wedged: Callable[["Child"], bool] = _never
    """Whether it looks alive but leaves its work undone; asked like `works`."""
    pids: Callable[["Child"], list[int]] = _itself
    """Which processes do its work, for the ready line."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Its own variables, beside those that all have."""
    prepare: Callable[[], None] = lambda: None
    """Called before every start."""
    is_store: bool = False
    """Stopped after what uses it."""

    @property
    def kind(self) -> str:
        """Under which name the ready line lists it."""
        return self.name.partition("/")[0]

    @property
    def label(self) -> str:
        """A name for logs and messages."""
        return self.name.replace("/", "-")


@dataclass(slots=True)
class Child:
    """A service's process, and its record."""

    service: Service
    environment: Mapping[str, str]
    log: Path
    crashes: int = 0
    """In a row."""
    started_at: float = 0.0
    """Monotonic time of the last start; 0 before the first."""
    starts_at: float = 0.0
    """Monotonic time of the next start, when it is down."""
    _process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    @property
    def pid(self) -> int:
        """Process id; 0 while it is down."""
        process = self._process
        return process.pid if process is not None else 0

    @property
    def runs(self) -> bool:
        """Whether it was started and has not been seen to end."""
        return self._process is not None

    @property
    def is_due(self) -> bool:
        """Whether it is down and may be started again."""
        return not self.runs and self.started_at > 0 and time.monotonic() >= self.starts_at

    @property
    def age_s(self) -> float:
        """Seconds since its last start."""
        return time.monotonic() - self.started_at

    def start(self) -> None:
        """Start it, tied to the thread that calls this.

        Raises:
            OSError: The machine has no room for a file or a process; the next start is planned.
        """
        self.started_at = time.monotonic()
        try:
            self.service.prepare()
            self.trim_log()
            self._process = self._spawn()
        except OSError:
            self._plan_restart()
            raise

    def notice_end(self) -> int | None:
        """Return the exit code if it has ended since the last look, and plan the next start."""
        if self._process is None or (code := self._process.poll()) is None:
            return None
        self._kill_group()
        self._process = None
        self._plan_restart()
        return code

    def terminate(self) -> None:
        """SIGTERM, if it runs."""
        if self._process is not None:
            self._process.terminate()

    def stop_before(self, deadline: float) -> None:
        """Wait until it has ended, until a monotonic time; then SIGKILL it with all it started."""
        if self._process is None:
            return
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """SIGKILL it with all it started, reap it, and plan the next start."""
        if self._process is not None:
            self._kill_group()
            self._process.kill()
            self._process.wait()
            self._process = None
            self._plan_restart()

    def last_words(self) -> str:
        """Return the last line of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").strip().splitlines()
        except OSError as error:
            return f"({error.strerror})"
        return lines[-1][:400] if lines else "(nothing)"

    def trim_log(self) -> None:
        """Keep a log that has grown long as `NAME.log.1` and begin again; writers append, so none is disturbed."""
        if not self.log.exists() or self.log.stat().st_size <= _LOG_BYTES:
            return
        older = self.log.with_suffix(".log.1")
        try:
            shutil.copyfile(self.log, older)
        except OSError:  # a full disk: room matters more than an old log
            older.unlink(missing_ok=True)
        os.truncate(self.log, 0)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(  # noqa: S603  # our own commands
                tethered(self.service.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, **self.service.environment},
                start_new_session=True,  # a Ctrl-C in the terminal is the supervisor's to handle
            )

    def _plan_restart(self) -> None:
        self.crashes = count_crash(self.crashes, lived_s=self.age_s)
        self.starts_at = time.monotonic() + backoff_s(self.crashes)

    def _kill_group(self) -> None:
        """What is left of its process group, which bears its process id."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
