"""A container's health check by what SQL says: `python presence.py worker NAME · dispatcher · beat`.

A worker's process, and its answers to a ping, say little: its main process lives while nothing is consumed. So it is
asked for where it announces every few seconds that it and its database connection live. Exit code 0 means healthy;
otherwise one sentence says what is wrong (`docker inspect` shows it).
"""

import os
import sys
from collections.abc import Callable

from sqlalchemy import Connection

from pipeline.database import Database, create_database_engine
from pipeline.errors import ForefillError, operator_sentence
from pipeline.jobs.dispatcher import ROLE
from pipeline.jobs.presence import BEAT_PREFIX, find_leader, list_beats, list_workers
from pipeline.settings import load_settings

_SEEN_MS = 20_000
"""A worker announces itself every 5 s, and so does beat."""


def worker_announced(connection: Connection, name: str) -> str | None:
    """Return what is wrong with a worker of this host, None if it announced itself lately."""
    wanted = f"{name}@{os.uname().nodename}"
    seen = {worker.name for worker in list_workers(connection, alive_ms=_SEEN_MS)}
    return None if wanted in seen else f"{wanted} did not announce itself for {_SEEN_MS // 1000} s"


def dispatcher_leads(connection: Connection) -> str | None:
    """Return what is wrong if no dispatcher leads; one that stands by is healthy as long as another leads."""
    return None if find_leader(connection, ROLE) else "no dispatcher leads"


def beat_ticks(connection: Connection) -> str | None:
    """Return what is wrong if no beat of this host ticked lately."""
    here = f"{BEAT_PREFIX}{os.uname().nodename}:"
    ticked = any(name.startswith(here) for name in list_beats(connection, alive_ms=_SEEN_MS))
    return None if ticked else f"beat did not tick for {_SEEN_MS // 1000} s"


_CHECKS: dict[str, Callable[..., str | None]] = {
    "worker": worker_announced,
    "dispatcher": dispatcher_leads,
    "beat": beat_ticks,
}


def main() -> str | None:
    """Run the check that the command line names; what is returned is the exit message."""
    name, *arguments = sys.argv[1:]
    try:
        database = Database(create_database_engine(load_settings().database_url, pool_size=1))
        with database.read() as connection:
            return _CHECKS[name](connection, *arguments)
    except ForefillError as error:
        return operator_sentence(error)


if __name__ == "__main__":
    sys.exit(main())
