"""Real processes under test: started in a session of their own, killed or paused by pid, always cleaned up.

Every process and all its descendants carry `FOREFILL_TEST_RUN=<random>` in their environment. Clean-up kills by that
mark, so also what left the session or was adopted by init; nothing that a test did not start is ever touched.
"""

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.support import tether
from tests.support.command_server import run_command
from tests.support.polling import eventually

MARK = "FOREFILL_TEST_RUN"
_TAIL_CHARS = 4000

_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
"""Starts all processes: a tether is to the starting thread, and this one lives as long as the test run."""


class Process:
    """One started command, its two log files and the signals a test may send it."""

    def __init__(self, popen: "subprocess.Popen[bytes]", *, name: str, stdout: Path, stderr: Path) -> None:
        self.name = name
        self.stdout = stdout
        """File that receives standard output."""
        self.stderr = stderr
        """File that receives standard error, where logs go."""
        self._popen = popen

    def __repr__(self) -> str:
        return f"<Process {self.name} pid={self.pid} exit_code={self._popen.poll()}>"

    @property
    def pid(self) -> int:
        """Process id; also the id of its session and process group."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code, minus the signal that ended it, or None while it runs."""
        return self._popen.poll()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended (a paused process runs)."""
        return self._popen.poll() is None

    def output(self) -> str:
        """Everything written to standard output so far."""
        return self.stdout.read_text(errors="replace")

    def log(self) -> str:
        """Everything written to standard error so far."""
        return self.stderr.read_text(errors="replace")

    def tail(self) -> str:
        """The end of both outputs, for messages of failed tests."""
        return f"{self!r}\n--- stdout\n{self.output()[-_TAIL_CHARS:]}\n--- stderr\n{self.log()[-_TAIL_CHARS:]}"

    def children(self) -> list[psutil.Process]:
        """All living descendants, parents first."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def wait(self, *, timeout_s: float = 60.0) -> int:
        """Wait for the end and return the exit code.

        Raises:
            AssertionError: It still runs after `timeout_s`.
        """
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"still running after {timeout_s:g} s: {self.tail()}") from error

    def wait_until(self, ready: Callable[[], object], *, timeout_s: float = 60.0) -> None:
        """Poll until `ready()` is truthy; fail at once, with the logs, when the process ends before."""

        def look() -> bool:
            value = bool(ready())
            assert value or self.is_running, f"ended before it was ready: {self.tail()}"
            return value

        eventually(look, timeout_s=timeout_s, describe=lambda: f"ready: {self.tail()}", tolerate=(OSError,))

    def wait_for_output(self, pattern: str, *, timeout_s: float = 60.0) -> re.Match[str]:
        """Wait until either output matches the regular expression and return the match (standard output first)."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            match = re.search(pattern, self.output(), re.MULTILINE) or re.search(pattern, self.log(), re.MULTILINE)
            if match:
                found.append(match)
            return bool(match)

        self.wait_until(look, timeout_s=timeout_s)
        return found[-1]

    def wait_for_json(self, key: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
        """Wait for a line of standard output that is a JSON object holding `key` and return the object."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            for line in self.output().splitlines(keepends=True):
                if line.startswith("{") and line.endswith("\n"):
                    value = json.loads(line)
                    if key in value:
                        found.append(value)
                        return True
            return False

        self.wait_until(look, timeout_s=timeout_s)
        return found[-1]

    def send(self, signal_number: int) -> None:
        """Send a signal to this process only, not to its group."""
        self._popen.send_signal(signal_number)

    def terminate(self, *, timeout_s: float = 60.0) -> int:
        """SIGTERM, then wait; return the exit code."""
        self.send(signal.SIGTERM)
        return self.wait(timeout_s=timeout_s)

    def kill(self) -> None:
        """SIGKILL this process only and reap it; its children are on their own."""
        self._popen.kill()
        self._popen.wait()

    def pause(self) -> None:
        """SIGSTOP this process only; returns when it has stopped."""
        pause(self.pid)

    def resume(self) -> None:
        """SIGCONT."""
        resume(self.pid)

    def pause_all(self) -> None:
        """SIGSTOP this process and its descendants, parents first."""
        for pid in [self.pid, *(child.pid for child in self.children())]:
            pause(pid)

    def resume_all(self) -> None:
        """SIGCONT this process and its descendants."""
        for pid in [self.pid, *(child.pid for child in self.children())]:
            resume(pid)

    def kill_all(self) -> None:
        """SIGKILL this process and its descendants at once."""
        victims = self.children()
        self.kill()
        for victim in victims:
            with suppress(psutil.NoSuchProcess):
                victim.kill()
        eventually(lambda: all(map(has_ended, victims)), describe=f"the end of the children of {self.name}")


class Processes:
    """Starts processes and ends every one of them, and what they started, when the `with` block ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mark = uuid.uuid4().hex
        self._started: list[Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill_everything()

    def start(
        self,
        command: Sequence[str | Path],
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        tethered: bool = True,
        owner: str = "-",
        death_signal: int = signal.SIGKILL,
    ) -> Process:
        """Start a command.

        Args:
            command: Program and arguments.
            name: For log files and messages; the program's name by default.
            env: Added to (and before) this process' environment.
            cwd: Working directory.
            tethered: The kernel ends it with `death_signal` when this process ends. Without it only the clean-up does.
            owner: `UID:GID` to run as, when started by root.
            death_signal: What the kernel sends.
        """
        arguments = [str(part) for part in command]
        label = f"{len(self._started):03d}-{name or Path(arguments[0]).name}"
        stdout, stderr = self._folder / f"{label}.out", self._folder / f"{label}.err"
        if tethered:
            guard = [sys.executable, "-S", "-E", tether.__file__, str(os.getpid()), str(int(death_signal)), owner]
            arguments = [*guard, *arguments]
        with stdout.open("wb") as out, stderr.open("wb") as err:
            popen = _SPAWNER.submit(
                subprocess.Popen,
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, **(env or {}), MARK: self._mark},
                cwd=cwd,
                start_new_session=True,
            ).result()
        process = Process(popen, name=label, stdout=stdout, stderr=stderr)
        self._started.append(process)
        return process

    def start_module(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start `python -m module arguments…` with this interpreter."""
        return self.start([sys.executable, "-m", module, *arguments], name=module, env=env)

    def start_forefill(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start `forefill arguments…` of this environment."""
        return self.start([*forefill_command(), *arguments], name=f"forefill-{arguments[0]}", env=env)

    def run_forefill(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run `forefill arguments…` to its end and return exit code, standard output and standard error as text."""
        own = {**os.environ, **(env or {}), MARK: self._mark}
        return run_command(arguments, env=own, cwd=None, stdin=b"", timeout_s=timeout_s)

    def alive(self) -> list[psutil.Process]:
        """Every living process that was started here, directly or not, wherever it has moved since."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def kill_everything(self) -> None:
        """SIGKILL all that `alive` finds until nothing is left, and reap the direct children."""

        def none_left() -> bool:
            for process in self.alive():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return not self.alive()

        for started in self._started:
            if started.is_running:
                started.kill_all()
        eventually(none_left, timeout_s=10, describe="the end of all started processes")

    def _is_ours(self, process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            return not has_ended(process) and process.environ().get(MARK) == self._mark
        return False


def forefill_command() -> list[str]:
    """Return the command that runs `forefill` of this environment."""
    script = Path(sys.executable).with_name("forefill")
    return [str(script)] if script.exists() else [sys.executable, "-m", "pipeline.cli"]


def has_ended(process: psutil.Process) -> bool:
    """Whether a process is gone, or dead and only not reaped by whoever adopted it."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pause(pid: int) -> None:
    """SIGSTOP a process by pid; returns when it has stopped."""
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, describe=f"SIGSTOP of {pid}")


def resume(pid: int) -> None:
    """SIGCONT a process by pid."""
    os.kill(pid, signal.SIGCONT)
