"""Runs `forefill` commands without loading Python and libraries for each: a process that has loaded them forks.

A command has everything of its own: arguments, environment, folder, standard streams, session, signals, exit code.
What is not tried this way is its loading; tests of that start a process themselves (`forefill_command`).
"""

import atexit
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

from tests.support.polling import eventually

_MOST_BYTES = 1024 * 1024
_STREAMS = 3
_PRELOADED = ("alembic.command", "qdrant_client", "tokenizers", "pipeline.factory")


def run_command(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path | str | None, stdin: bytes, timeout_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end, and return what it said as text.

    Raises:
        AssertionError: It still runs after `timeout_s`, and was killed.
    """
    request = json.dumps([list(arguments), dict(env), str(cwd or Path.cwd())]).encode()
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        given.write(stdin)
        given.seek(0)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(_address()))
            socket.send_fds(connection, [request], [given.fileno(), output.fileno(), errors.fileno()])
            pid = int(connection.recv(64))
            connection.settimeout(timeout_s)
            try:
                code = int(connection.recv(64))
            except TimeoutError as error:
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"`forefill {' '.join(arguments)}` still runs after {timeout_s:g} s") from error
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read().decode(), errors.read().decode())


@cache
def _address() -> Path:
    """Start the server of this test process, and return where it listens."""
    address = Path(tempfile.mkdtemp(prefix="forefill-commands-")) / "socket"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOREFILL_")}
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()", str(address), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        env=clean,
    )
    atexit.register(_stop, process, address)
    eventually(address.exists, describe="the server of commands")
    return address


def _stop(process: "subprocess.Popen[bytes]", address: Path) -> None:
    process.kill()
    process.wait()
    shutil.rmtree(address.parent)


def main() -> None:
    """Load all commands, then fork for each request until the tests' process ends; the child becomes the command."""
    from pipeline.cli.main import COMMANDS  # only the server needs them
    from pipeline.cli.main import main as forefill

    for name in (*_PRELOADED, *(f"pipeline.cli.{module}" for module in dict.fromkeys(COMMANDS.values()))):
        import_module(name)
    _become_command(Path(sys.argv[1]), parent=int(sys.argv[2]))
    forefill()


def _become_command(address: Path, *, parent: int) -> None:
    """Serve; return in each child, with everything as a command of its own has it."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    early = address.with_suffix(".new")
    listener.bind(str(early))
    listener.listen(64)
    early.rename(address)  # who sees it can connect
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener.settimeout(1.0)
    while os.getppid() == parent:
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            return _keep(connection)
        connection.close()
    sys.exit()


def _keep(connection: socket.socket) -> None:
    """Fork once more, and tell the caller how the command ended; return in the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, streams, _, _ = socket.recv_fds(connection, _MOST_BYTES, _STREAMS)
    arguments, environment, folder = json.loads(request)
    pid = os.fork()
    if pid:
        connection.send(str(pid).encode())
        _, status = os.waitpid(pid, 0)
        connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    connection.close()
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["forefill", *arguments]
