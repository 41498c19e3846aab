"""The stack under test: one `forefill up` on a folder of its own, with SQLite or PostgreSQL behind it."""

import math
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Literal, Self, TypeAlias

import psutil
import redis

from pipeline.database import Database, create_database_engine
from pipeline.settings import Settings, load_settings
from tests.campaign.link import Link
from tests.support.ports import free_port
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, Processes, forefill_command

DatabaseKind: TypeAlias = Literal["sqlite", "postgresql"]

LEASE_S = 8.0
_START_S = 240.0
"""On a machine with eight CPU burners and a cold disk."""

_START_ATTEMPTS = 3
_DISK_MIB = 1024
_MARKS = {
    "pipeline.retrieval.owner": "qdrant",
    "-m api": "api",
    "workers.dispatcher": "dispatcher",
    "interactive@": "workers-interactive",
    "bulk@": "workers-bulk",
    " beat": "beat",
    " flower": "flower",
}
"""What stands in the command line of a process of the stack, and what it does."""

_OVERRIDES = {
    "FOREFILL_LEASE_S": f"{LEASE_S:g}",
    "FOREFILL_HEARTBEAT_S": "2",
    "FOREFILL_REPUBLISH_S": "5",
    "FOREFILL_AUDIT_EVERY": "50",
}
"""A lease that a fault can outlast; more audits than usual."""


class CampaignStack:
    """Starts everything and brings it back when a fault has ended it; all of it is gone afterwards."""

    def __init__(self, kind: DatabaseKind, *, logs: Path | None = None) -> None:
        """Prepare what does not run.

        Args:
            kind: Of its database.
            logs: Folder that is given everybody's logs at the end.
        """
        self.kind: DatabaseKind = kind
        self._logs = logs
        self._stack = ExitStack()
        self.root = Path(
            self._stack.enter_context(TemporaryDirectory(prefix="ff-campaign-", ignore_cleanup_errors=True))
        )
        self.disk = self.root / "disk"
        self.disk.mkdir()
        self.disk_is_ours = self._stack.enter_context(small_disk(self.disk))
        """Whether the data has a small disk of its own, which can be filled."""
        self.folder = self.disk / "data"
        self.processes = self._stack.enter_context(Processes(self.root))
        self._stack.callback(self._keep_logs)
        self.postgres: PostgresServer | None = None
        self.link: Link | None = None
        self.database_name = ""
        self._port = free_port()
        self._lock = threading.RLock()
        self.up: Process | None = None
        self.failures: list[str] = []
        """Starts of `up` that did not succeed."""
        self.is_lost = False
        """Whether it does not come back any more."""
        self.touched: set[int] = set()
        """Processes that a fault has killed or stopped, with all their descendants."""
        self.disk_full_at = -math.inf
        """Monotonic time at which the disk was last full, as far as faults know."""
        self.planned = threading.Event()
        """Set while a fault has ended everything on purpose."""
        self._database: Database | None = None

    def __enter__(self) -> Self:
        try:
            self._start_all()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def api_url(self) -> str:
        """Where the API listens, over all restarts."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def database(self) -> Database:
        """The database, by a way that no fault touches."""
        assert self._database is not None, "the stack was not started"
        return self._database

    @property
    def settings(self) -> Settings:
        """What the folder says."""
        return load_settings(self.folder)

    @property
    def sqlite_file(self) -> Path:
        """The folder's own database."""
        return self.folder / "forefill.db"

    def start(self) -> None:
        """Start `forefill up` and wait until it is ready.

        Raises:
            AssertionError: It ended, or did not become ready in time.
        """
        with self._lock:
            self.up = self.processes.start(
                [*forefill_command(), "up", "--data-dir", self.folder, "--port", str(self._port), "--workers", "2"],
                name="up",
                env=self._environment(),
                cwd=self.root,
            )
            self.up.wait_for_json("ready", timeout_s=_START_S)

    def ensure_up(self) -> None:
        """Start it if it has ended; what goes wrong meanwhile is noted in `failures`."""
        with self._lock:
            for _ in range(_START_ATTEMPTS):
                if self.up is not None and self.up.is_running:
                    return
                try:
                    self.start()
                except AssertionError as error:
                    self.failures.append(f"`up` did not become ready: {error}")
                    if self.up is not None and self.up.is_running:
                        self.up.kill_all()
            self.is_lost = self.up is None or not self.up.is_running

    def supervised(self) -> dict[int, str]:
        """Return the processes that `up` runs now, by pid, each with a name."""
        up = self.up
        if up is None or not up.is_running:
            return {}
        with suppress(psutil.NoSuchProcess):
            return {child.pid: name for child in psutil.Process(up.pid).children() if (name := role_of(child))}
        return {}

    def find(self, role: str) -> psutil.Process | None:
        """Return the process that does something now, None while there is none."""
        for pid, name in self.supervised().items():
            if name == role:
                with suppress(psutil.NoSuchProcess):
                    return psutil.Process(pid)
        return None

    def touch(self, process: psutil.Process) -> None:
        """Note that a fault is about to do something to a process and what it started."""
        with suppress(psutil.NoSuchProcess):
            self.touched.update([process.pid, *(child.pid for child in process.children(recursive=True))])

    def cache(self) -> "redis.Redis":
        """A client of the cache; the caller closes it."""
        return redis.Redis.from_url(self.settings.cache_url, socket_timeout=5)

    def broker(self) -> "redis.Redis":
        """A client of the broker; the caller closes it."""
        return redis.Redis.from_url(self.settings.broker_url, socket_timeout=5)

    def forefill(self, *arguments: str, timeout_s: float = 300.0) -> "subprocess.CompletedProcess[str]":
        """Run a command on the folder to its end."""
        return self.processes.run_forefill("--data-dir", str(self.folder), *arguments, timeout_s=timeout_s)

    def _keep_logs(self) -> None:
        if self._logs is not None:
            self._logs.mkdir(parents=True, exist_ok=True)
            kept = [*self.root.glob("*.err"), *(self.folder / "logs").glob("*"), *self.folder.glob("forefill.db*")]
            for file in kept:
                if file.stat().st_size:
                    shutil.copyfile(file, self._logs / file.name)

    def _start_all(self) -> None:
        if self.kind == "postgresql":
            self.postgres = self._stack.enter_context(PostgresServer())
            self.database_name = self.postgres.create_database()
            self.link = self._stack.enter_context(Link(self.postgres.socket))
        self.start()
        self._database = Database(create_database_engine(self._private_url()))
        self._stack.callback(self._database.close)

    def _environment(self) -> Mapping[str, str]:
        if self.link is None:
            return _OVERRIDES
        address = f"postgresql+psycopg://postgres@127.0.0.1:{self.link.port}/{self.database_name}"
        return {**_OVERRIDES, "FOREFILL_DATABASE_URL": address}

    def _private_url(self) -> str:
        """The database, not by the link that faults silence."""
        if self.postgres is not None:
            return self.postgres.url(self.database_name)
        return f"sqlite:///{self.sqlite_file}"


def role_of(process: psutil.Process) -> str:
    """Return what a process of the stack does, by its command line; nothing for one that does not exist (yet)."""
    try:
        command = process.cmdline()
    except psutil.NoSuchProcess:
        return ""
    said = " ".join(command)
    if "tether.py" in said:  # it is becoming what it was started as
        return ""
    if "valkey-server" in said:  # a server writes its own title; its folder has its name
        with suppress(psutil.Error):
            return Path(process.cwd()).name
        return ""
    return next((role for mark, role in _MARKS.items() if mark in said), said[-80:])


@contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """Put a small file system of memory into a folder, if this user may; yield whether it is there."""
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m,mode=755", "forefill-campaign", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        for _ in range(50):
            if not subprocess.run(["umount", folder], capture_output=True, check=False).returncode:
                break
            time.sleep(0.1)
