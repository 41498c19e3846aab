"""The processes of the embedded stack: command, own environment, and how to see that each works."""

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.cli.processes import BEAT_ARGUMENTS, worker_arguments
from pipeline.cli.stack import valkey
from pipeline.cli.stack.child import Child, Service
from pipeline.cli.stack.environment import StackSettings
from pipeline.cli.stack.flower_conf import (
    FlowerOptions,
    ensure_auth_file,
    flower_arguments,
    read_logins,
    write_flower_conf,
)
from pipeline.cli.stack.ports import LOOPBACK
from pipeline.cli.stack.query_check import Inquirer
from pipeline.cli.stack.serving_pids import read_serving_pids
from pipeline.cli.stack.wedge import WEDGED_S, find_wedged_queues
from pipeline.cli.stack.worker_metrics import empty_folder
from pipeline.database import Database
from pipeline.jobs.dispatcher import LEAD_S, ROLE
from pipeline.jobs.presence import beat_name, find_leader, list_beats, list_workers
from pipeline.services.diagnosis.database_writes import DatabaseWriteProbe
from pipeline.settings import Settings
from pipeline.telemetry.metrics import FOLDER_VARIABLE

_WORKERS_S = 30.0

WORKERS = {"interactive": ["interactive"], "bulk": ["bulk", "maintenance"]}
"""Two workers, so that a nightly run cannot hold up an update."""


class SqlSigns:
    """Who works, by what they write into SQL. While it takes no writes nobody can tell: silence is no sign then."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._writes = DatabaseWriteProbe(database)

    def is_announced(self, name: str, child: Child) -> bool:
        """Return whether this host's worker of that name has said since its start, and lately, that it consumes.

        Raises:
            Unavailable: The database does not answer, or takes no writes.
        """
        with self._database.read() as connection:
            seen = {worker.name: worker.seen_s for worker in list_workers(connection)}
        return self._judged(seen.get(f"{name}@{os.uname().nodename}", math.inf) < child.age_s)

    def leads(self, child: Child) -> bool:
        """Return whether this dispatcher leads, or another one that lives: what a dead one leaves is gone by then.

        Raises:
            Unavailable: As `is_announced`.
        """
        with self._database.read() as connection:
            leader = find_leader(connection, ROLE)
        return self._judged(leader is not None and (leader.endswith(f":{child.pid}") or child.age_s > LEAD_S))

    def ticks(self, child: Child) -> bool:
        """Return whether this very beat has said lately that it ticked.

        Raises:
            Unavailable: As `is_announced`.
        """
        with self._database.read() as connection:
            age_s = list_beats(connection).get(beat_name(child.pid), math.inf)
        return self._judged(age_s < child.age_s)

    def leaves_jobs(self, queues: list[str], child: Child) -> bool:
        """Return whether jobs of these queues wait that nobody claims.

        Raises:
            Unavailable: As `is_announced`: a claim is a write.
        """
        is_wedged = child.age_s > WEDGED_S and not find_wedged_queues(self._database).isdisjoint(queues)
        return not self._judged(not is_wedged)

    def _judged(self, works: bool) -> bool:
        """Return a verdict; a bad one only of who could have written what would be a better one."""
        if not works:
            self._writes.require_writes()
        return works


@dataclass(frozen=True, slots=True)
class Plan:
    """What the processes are made from."""

    stack: StackSettings
    """Addresses and secrets."""
    settings: Settings
    """What every process reads."""
    database: Database
    """Asked who is alive."""
    inquirer: Inquirer
    """Asks over HTTP."""
    cache_mib: int
    """Memory of the cache."""

    def services(self) -> list[Service]:
        """Write the configuration files and return the services in the order of their start.

        Raises:
            ConfigurationError: There is no Valkey for this machine.
            OSError: The folder cannot be written.
        """
        signs = SqlSigns(self.database)
        processes = [*self._workers(signs), *self._clocks(signs), self._flower()]
        return [*self._valkeys(), self._qdrant(), self._api(), *processes]

    def _valkeys(self) -> list[Service]:
        broker = valkey.write_server_conf(
            self.stack.folder / "broker",
            port=self.stack.broker_port,
            password=self.stack.broker_password,
            memory_mib=valkey.BROKER_MEMORY_MIB,
            policy="noeviction",  # an evicted message is a lost one
        )
        cache = valkey.write_server_conf(
            self.stack.folder / "cache",
            port=self.stack.cache_port,
            password=self.stack.cache_password,
            memory_mib=self.cache_mib,
            policy=valkey.cache_policy(self.settings),
        )
        binary = valkey.server_binary()
        return [
            Service(
                "broker",
                [binary, str(broker)],
                lambda _child: valkey.answers(self.stack.broker_port, self.stack.broker_password),
                is_store=True,
            ),
            Service(
                "cache",
                [binary, str(cache)],
                lambda _child: valkey.answers(self.stack.cache_port, self.stack.cache_password),
                is_store=True,
            ),
        ]

    def _qdrant(self) -> Service:
        folder, port = self.stack.folder / "qdrant", self.stack.qdrant_port
        arguments = ["pipeline.retrieval.owner", "--data-dir", str(folder), "--port", str(port)]
        return Service("qdrant", _python(arguments), self._serves(port, "/readyz"), is_store=True)

    def _api(self) -> Service:
        serves, count = self._serves(self.stack.api_port, "/healthz"), self.settings.api_processes
        if count == 1:
            return Service("api", _python(["api"]), serves)
        counts = self.stack.folder / "metrics" / "api"
        look = _SeveralLook(serves, counts, count=count)
        return Service(
            "api",
            _python(["api"]),
            works=look.works,
            pids=lambda _child: read_serving_pids(counts),
            environment={FOLDER_VARIABLE: str(counts)},
            prepare=partial(empty_folder, counts),
        )

    def _workers(self, signs: SqlSigns) -> list[Service]:
        ports = {"interactive": self.stack.interactive_metrics_port, "bulk": self.stack.bulk_metrics_port}
        return [self._worker(name, queues, signs, metrics_port=ports[name]) for name, queues in WORKERS.items()]

    def _worker(self, name: str, queues: list[str], signs: SqlSigns, *, metrics_port: int) -> Service:
        counts = self.stack.folder / "metrics" / name
        return Service(
            f"workers/{name}",
            _python(worker_arguments(queues, concurrency=self.settings.worker_concurrency, name=name)),
            works=lambda child: signs.is_announced(name, child),
            wedged=lambda child: signs.leaves_jobs(queues, child),
            environment={"FOREFILL_WORKER_METRICS_PORT": str(metrics_port), FOLDER_VARIABLE: str(counts)},
            prepare=partial(empty_folder, counts),
        )

    def _clocks(self, signs: SqlSigns) -> list[Service]:
        return [
            Service("dispatcher", _python(["workers.dispatcher"]), signs.leads),
            Service("beat", _python(BEAT_ARGUMENTS), signs.ticks),
        ]

    def _flower(self) -> Service:
        login = auth_file(self.stack.folder)
        ensure_auth_file(login)
        options = FlowerOptions(
            folder=self.stack.folder / "flower",
            auth_file=login,
            host=LOOPBACK,
            port=self.stack.flower_port,
            writable=self.settings.flower_writable,
        )
        arguments = flower_arguments(write_flower_conf(options))
        return Service("flower", _python(arguments), _FlowerLook(self.inquirer, options).works)

    def _serves(self, port: int, path: str) -> Callable[[Child], bool]:
        return lambda _child: self.inquirer.serves(port, path)


class _SeveralLook:
    """Sees whether the API works, and once after each start that all of its processes do; later losses it mends."""

    def __init__(self, serves: Callable[[Child], bool], counts: Path, *, count: int) -> None:
        self._serves = serves
        self._counts = counts
        self._count = count
        self._complete = 0.0  # of which start

    def works(self, child: Child) -> bool:
        """Return whether it answers."""
        if self._complete != child.started_at and len(read_serving_pids(self._counts)) == self._count:
            self._complete = child.started_at
        return self._complete == child.started_at and self._serves(child)


class _FlowerLook:
    """Sees whether Flower works, and once after each start that it knows the workers' queues and settings."""

    def __init__(self, inquirer: Inquirer, options: FlowerOptions) -> None:
        self._inquirer = inquirer
        self._options = options
        self._refreshed = 0.0  # of which start

    def works(self, child: Child) -> bool:
        """Return whether it serves; workers that are slow to come are waited for, but not for ever."""
        if not self._inquirer.serves(self._options.port, "/healthcheck"):
            return False
        if self._refreshed != child.started_at:
            login = read_logins(self._options.auth_file)[0]
            if self._inquirer.shows_workers(self._options.port, login) or child.age_s > _WORKERS_S:
                self._refreshed = child.started_at
        return self._refreshed == child.started_at


def auth_file(folder: Path) -> Path:
    """Return where the login for Flower stands."""
    return folder / "flower.auth"


def _python(module: Sequence[str]) -> list[str]:
    # -P keeps the working directory out of the module path: a folder named `api` there must not be taken for ours.
    return [sys.executable, "-P", "-m", *module]
