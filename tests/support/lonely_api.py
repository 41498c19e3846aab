"""The API as a process of its own whose database is there, and everything else is not."""

import http.client
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from pipeline.database import Database
from pipeline.factory import open_database
from pipeline.services.schema import upgrade
from pipeline.settings import Settings
from tests.support.ports import LOOPBACK, NO_TLS, free_port
from tests.support.processes import Process, Processes


class LonelyApi:
    """An API process on a SQLite file; its cache, broker and Qdrant are ports that nobody listens on."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.port = free_port()
        self.environment = {
            "FOREFILL_DATABASE_URL": f"sqlite:///{folder / 'forefill.db'}",
            "FOREFILL_BROKER_URL": f"redis://{LOOPBACK}:{free_port()}/0",
            "FOREFILL_CACHE_URL": f"redis://{LOOPBACK}:{free_port()}/0",
            "FOREFILL_QDRANT_URL": f"http://{LOOPBACK}:{free_port()}",
            "FOREFILL_API_PORT": str(self.port),
            "FOREFILL_MAX_REQUEST_BYTES": "1000000",
        }
        self._processes = processes

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    @contextmanager
    def database(self) -> Iterator[Database]:
        """Open its database."""
        database = open_database(Settings(database_url=self.environment["FOREFILL_DATABASE_URL"]), durable=False)
        try:
            yield database
        finally:
            database.close()

    def upgrade(self) -> None:
        """Bring its database to the newest revision."""
        with self.database() as database:
            upgrade(database)

    def forefill(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Run a command on its database."""
        return self._processes.run_forefill(*arguments, env={**self.environment, **environment}, timeout_s=60)

    def launch(self, **environment: str) -> Process:
        """Start it, and wait for nothing."""
        return self._processes.start_module("api", env={**self.environment, **environment})

    def refusal(self, process: Process) -> str:
        """Wait until a process has refused to start, and return what it says beside which version it is."""
        assert process.wait(timeout_s=60) == 1
        first, *rest = process.log().splitlines()
        assert '"event": "process.started"' in first
        (sentence,) = rest
        return sentence

    def start(self, **environment: str) -> Process:
        """Upgrade its database, start it, and wait until it answers."""
        self.upgrade()
        process = self.launch(**environment)
        process.wait_until(self.is_alive, timeout_s=30.0)
        return process

    def is_alive(self) -> bool:
        """Return whether it answers."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=2.0, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            return False

    def raw(
        self, target: str, *, method: str = "GET", host: str = "localhost", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Send a request target as it is, without a client that tidies it up."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        try:
            connection.putrequest(method, target, skip_host=True)
            connection.putheader("Host", host)
            for name, value in (headers or {}).items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
