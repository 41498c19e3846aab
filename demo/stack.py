"""The embedded stack, started and used as a user does: `forefill up` and other commands, as processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from demo.checks import CannotGoOn
from demo.processes import MARK, Family, has_ended

LEASE_S = 5
"""Seconds after which the work of a dead worker is taken up; 30 unless set, which a demo need not wait for."""

STOP_S = 10.0
"""Seconds in which `up` promises to have stopped everything."""

_READY_S = 120.0
_COMMAND_S = 120.0
_LEFT_S = 3.0
_LOOK_S = 0.05
_TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Ready:
    """What the ready line of `forefill up` says, as far as the demo uses it."""

    api: str
    flower: str
    flower_login: str
    """`USER:PASSWORD`."""
    supervisor: int
    workers: list[int]
    """Main processes of the workers."""


def forefill_command() -> list[str]:
    """Return the command beside this interpreter.

    Raises:
        CannotGoOn: There is none.
    """
    script = Path(sys.executable).with_name("forefill")
    if not script.exists():
        raise CannotGoOn(f"there is no {script}: `make env` installs it")
    return [str(script)]


class Stack:
    """One `forefill up` in a folder of its own, whatever the environment says about other deployments."""

    def __init__(self, folder: Path, *, command: Sequence[str], variables: Mapping[str, str] | None = None) -> None:
        """Start nothing yet.

        Args:
            folder: Empty; takes the data and the log of `up`.
            command: What runs `forefill`.
            variables: Added to the environment of every process.
        """
        self.folder = folder
        self.family = Family()
        """Every process that is started here."""
        self._command = list(command)
        self._log = folder / "up.log"
        self._up: subprocess.Popen[str] | None = None
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FOREFILL_")}
        self._environment = {
            **clean,
            MARK: self.family.mark,
            "FOREFILL_LEASE_S": str(LEASE_S),
            "FOREFILL_HEARTBEAT_S": "1",
            **(variables or {}),
        }

    def start(self) -> Ready:
        """Start everything and wait for the ready line.

        Raises:
            CannotGoOn: It ended, or did not get ready in time; the message has its last words.
        """
        data = self.folder / "data"
        with self._log.open("w") as log:
            self._up = subprocess.Popen(  # noqa: S603  # the command of this environment, no shell
                [*self._command, "up", "--data-dir", str(data), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                text=True,
                env=self._environment,
                cwd=self.folder,
            )
        self._environment["FOREFILL_DATA_DIR"] = str(data)
        line = json.loads(self._first_line(self._up))
        return Ready(
            api=line["api"],
            flower=line["flower"],
            flower_login=Path(line["flower_auth_file"]).read_text(encoding="utf-8").strip(),
            supervisor=line["pids"]["supervisor"],
            workers=line["pids"]["workers"],
        )

    def forefill(self, *arguments: str) -> dict[str, Any]:
        """Run a command with `--json` that must succeed, and return the object it printed.

        Its progress and complaints go to standard error, as ever.

        Raises:
            CannotGoOn: It failed, took too long, or printed no object.
        """
        try:
            done = subprocess.run(  # noqa: S603  # the command of this environment, no shell
                [*self._command, *arguments, "--json"],
                stdout=subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                env=self._environment,
                cwd=self.folder,
                timeout=_COMMAND_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CannotGoOn(f"`forefill {arguments[0]}` has not ended after {_COMMAND_S:g} s") from error
        if done.returncode:
            raise CannotGoOn(f"`forefill {arguments[0]}` ended with exit code {done.returncode}; it said why")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def note_processes(self) -> None:
        """Remember every process that runs now, to look for it after the end."""
        if self._up is not None:
            self.family.note(self._up.pid)

    def stop(self) -> tuple[int | None, float]:
        """Ask `up` to end; return its exit code and the seconds it took.

        The exit code is None when it was not started. One that does not end in three times the promised time is killed.
        """
        if self._up is None:
            return None, 0.0
        self.note_processes()
        began = time.monotonic()
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
        try:
            self._up.wait(3 * STOP_S)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self._up.wait()
        if self._up.stdout is not None:
            self._up.stdout.close()
        return self._up.returncode, time.monotonic() - began

    def end_what_is_left(self) -> list[str]:
        """Return the command lines of processes that outlived the stack, after killing them.

        A process that the kernel is just taking down has a moment to be gone.
        """
        deadline = time.monotonic() + _LEFT_S
        while (left := self.family.alive()) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        said = [f"{process.pid} {process.name()}" for process in left if not has_ended(process)]
        for process in left:
            if not has_ended(process):
                process.kill()
        return said

    def last_words(self) -> str:
        """Return the last lines that `up` said."""
        if not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])

    def _first_line(self, up: "subprocess.Popen[str]") -> str:
        lines: SimpleQueue[str] = SimpleQueue()
        stream = up.stdout
        assert stream is not None  # noqa: S101  # it was asked for
        threading.Thread(target=lambda: lines.put(stream.readline()), daemon=True).start()
        try:
            line = lines.get(timeout=_READY_S)
        except Empty as error:
            raise CannotGoOn(f"`forefill up` is not ready after {_READY_S:g} s: {self.last_words()}") from error
        if not line:
            raise CannotGoOn(f"`forefill up` ended with exit code {up.wait()}: {self.last_words()}")
        return line
