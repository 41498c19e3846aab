"""The `forefill` command as users run it: a process with its own standard input, on a SQLite file and real Valkeys."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.database import Database, create_database_engine
from pipeline.services.schema import upgrade
from tests.support.command_server import run_command
from tests.support.processes import forefill_command

_PEAK = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""
"""A small parent: a process inherits the peak of the one that forked it."""


class Commands:
    """Runs commands in a folder of their own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)

    def run(
        self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return run_command(arguments, env=self._environment(env), cwd=self.folder, stdin=stdin, timeout_s=timeout_s)

    def answer(self, *arguments: str, stdin: bytes = b"", code: int = 0) -> dict[str, Any]:
        """Run a command with `--json` that ends with an exit code, and return the one object it printed."""
        done = self.run(*arguments, "--json", stdin=stdin)
        assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        (line,) = done.stdout.splitlines()
        value: dict[str, Any] = json.loads(line)
        return value

    @contextmanager
    def start(self, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
        """Start a command whose standard input stays open; it is killed at the end."""
        with subprocess.Popen(
            [*forefill_command(), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment(None),
            cwd=self.folder,
        ) as process:
            try:
                yield process
            finally:
                process.kill()

    def peak_kib(self, *arguments: str, timeout_s: float = 60.0) -> int:
        """Run a command that must succeed and return the most memory it held, in KiB."""
        done = subprocess.run(
            [sys.executable, "-S", "-c", _PEAK, *forefill_command(), *arguments],
            capture_output=True,
            env=self._environment(None),
            cwd=self.folder,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stderr.decode()
        return int(done.stdout)

    def open_database(self) -> Database:
        """Open the commands' database; the caller closes it."""
        return Database(create_database_engine(self.environment["FOREFILL_DATABASE_URL"]))

    def upgrade(self) -> None:
        """Bring it to the newest revision."""
        database = self.open_database()
        upgrade(database)
        database.close()

    def _environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FOREFILL_")}
        return {**clean, **self.environment, **(extra or {})}


def interrupt(process: "subprocess.Popen[bytes]") -> tuple[int, str]:
    """Ctrl-C; return exit code and standard error."""
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    return process.returncode, errors.decode()


def json_lines(documents: Iterable[Mapping[str, object]]) -> bytes:
    """Return documents as JSON lines."""
    return b"".join(json.dumps(document).encode() + b"\n" for document in documents)


def numbered(count: int, *, start: int = 0) -> list[dict[str, object]]:
    """Return small documents of different texts."""
    return [{"id": f"doc-{number:06}", "text": f"The text of document {number}."} for number in range(start, count)]
