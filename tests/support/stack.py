"""The whole of Forefill as real processes: two Valkeys, the Qdrant owner, SQL, workers, dispatcher, API."""

import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from pipeline.database import Database
from pipeline.factory import open_database
from pipeline.jobs.run_reports import RunReport, get_run
from pipeline.services.schema import upgrade
from pipeline.settings import Settings
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK, NO_TLS, free_port
from tests.support.processes import Process, Processes
from tests.support.readers import Readers
from tests.support.valkey import ValkeyServer

QUICK = {
    "FOREFILL_LEASE_S": "4",
    "FOREFILL_HEARTBEAT_S": "1",
    "FOREFILL_DISPATCH_INTERVAL_S": "0.2",
    "FOREFILL_REPUBLISH_S": "5",
    "FOREFILL_VISIBILITY_TIMEOUT_S": "180",
}
"""Short leases, so that what needs one to expire does not take a test half a minute."""


class Stack:
    """Starts what a test asks for; all of it is gone afterwards.

    Services start in the order a deployment would: stores first, then what uses them.
    """

    def __init__(self, folder: Path, *, database_url: str, environment: Mapping[str, str] | None = None) -> None:
        self._stack = ExitStack()
        self._folder = folder
        self._key = secrets.token_hex(16)
        self._qdrant_port = free_port()
        self.api_port = free_port()
        self.cache = self._stack.enter_context(ValkeyServer(append_only=True))
        self.broker = self._stack.enter_context(ValkeyServer(options=("--maxmemory-policy", "noeviction")))
        self.processes = self._stack.enter_context(Processes(folder))
        self.environment = {
            **QUICK,
            "FOREFILL_DATABASE_URL": database_url,
            "FOREFILL_CACHE_URL": self.cache.url,
            "FOREFILL_BROKER_URL": self.broker.url,
            "FOREFILL_QDRANT_URL": f"http://{LOOPBACK}:{self._qdrant_port}",
            "FOREFILL_QDRANT_API_KEY": self._key,
            "FOREFILL_API_PORT": str(self.api_port),
            "FOREFILL_WORKER_CONCURRENCY": "2",
            "REMAP_SIGTERM": "SIGQUIT",
            **(environment or {}),
        }
        self.settings = Settings.model_validate(
            {
                name.removeprefix("FOREFILL_").lower(): value
                for name, value in self.environment.items()
                if _is_ours(name)
            }
        )
        self.database: Database = open_database(self.settings, durable=True)
        self._stack.callback(self.database.close)
        upgrade(self.database)
        self.owner = self.start_owner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start_owner(self) -> Process:
        """Start the embedded Qdrant engine and wait until it is ready."""
        owner = self.processes.start_module(
            "pipeline.retrieval.owner",
            *("--data-dir", str(self._folder / "qdrant"), "--port", str(self._qdrant_port)),
            env=self.environment,
        )
        url = f"http://{LOOPBACK}:{self._qdrant_port}/readyz"
        owner.wait_until(lambda: _answers(url))
        self.owner = owner
        return owner

    def start_worker(
        self, *, queues: str = "interactive,bulk,maintenance", name: str = "worker", module: str = "celery"
    ) -> Process:
        """Start a Celery worker and wait until it consumes.

        Args:
            queues: What it consumes.
            name: Before the host's name.
            module: What is run as a command; takes Celery's arguments.
        """
        worker = self.processes.start(
            [
                *(sys.executable, "-m", module, "-A", "workers.main", "worker", "-P", "prefork"),
                *("--without-gossip", "--without-mingle", "-Q", queues, "-n", f"{name}@%h"),
            ],
            name=name,
            env=self.environment,
            cwd=Path(__file__).parents[2],
        )
        worker.wait_for_output(r"worker\.ready|ready\.", timeout_s=60)
        return worker

    def start_dispatcher(self) -> Process:
        """Start a dispatcher."""
        dispatcher = self.processes.start_module("workers.dispatcher", env=self.environment)
        dispatcher.wait_for_output(r"dispatcher\.started", timeout_s=30)
        return dispatcher

    def start_api(self) -> Process:
        """Start the API and wait until it is ready."""
        api = self.processes.start_module("api", env=self.environment)
        api.wait_until(lambda: _answers(f"{self.api_url}/readyz"), timeout_s=30)
        return api

    def start_readers(self, corpus: str, questions: Sequence[str], *, count: int) -> Readers:
        """Start readers that query the API until they are stopped."""
        return Readers(self.api_url, corpus, questions, count=count)

    def forefill(self, *arguments: str) -> dict[str, Any]:
        """Run a `forefill … --json` command that must succeed and return the last object it printed."""
        result = self.processes.run_forefill(*arguments, env=self.environment, timeout_s=120)
        assert result.returncode == 0, f"{arguments}: {result.stdout}\n{result.stderr}"
        answer: dict[str, Any] = json.loads(result.stdout.strip().splitlines()[-1])
        return answer

    def wait_for_run(self, run_id: str, *, timeout_s: float = 60.0) -> RunReport:
        """Wait until a run has ended and return it."""

        def ended() -> RunReport | None:
            with self.database.read() as connection:
                run = get_run(connection, run_id)
            return run if run.finished_at is not None else None

        report = eventually(ended, timeout_s=timeout_s, describe=lambda: self._describe_run(run_id))
        assert report is not None
        return report

    def _describe_run(self, run_id: str) -> str:
        with self.database.read() as connection:
            run = get_run(connection, run_id)
            jobs = connection.exec_driver_sql("SELECT * FROM jobs WHERE finished_at IS NULL").all()
        return f"the end of {run}; unfinished jobs: {jobs}"

    @property
    def api_url(self) -> str:
        """Where the API listens."""
        return f"http://{LOOPBACK}:{self.api_port}"


def _is_ours(name: str) -> bool:
    return name.startswith("FOREFILL_")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0, verify=NO_TLS).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
