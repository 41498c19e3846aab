"""Processes whose entry key does not fit the cache: each says so in SQL, so that `forefill doctor` can name it."""

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import orjson
from sqlalchemy import Connection, delete, select

from pipeline.database import Database, now_ms
from pipeline.errors import Unavailable
from pipeline.jobs.installation import set_fact
from pipeline.jobs.tables import InstallationRow
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_MISMATCH = "key_mismatch:"
"""Facts of this prefix say which process was refused, why and when: JSON."""
_KEPT_MS = 3_600_000
"""One that says nothing for an hour has ended, or has the right key by now."""


@dataclass(frozen=True, slots=True)
class KeyMismatch:
    """One process that may not write entries."""

    process: str
    """Host, process id and program."""
    reason: str
    at: int
    """When it was refused last, in ms of the database's clock."""


def reporting_to(database: Database) -> Callable[[str], None]:
    """Return a function that records this process; it never waits for SQL, and never fails."""

    def report(reason: str) -> None:
        threading.Thread(target=_record, args=(database, reason), name="key mismatch", daemon=True).start()

    return report


def list_key_mismatches(connection: Connection) -> list[KeyMismatch]:
    """Return the processes that were refused within the last hour, by name."""
    now = connection.execute(select(now_ms())).scalar_one()
    noted = select(InstallationRow.value).where(InstallationRow.key.startswith(_MISMATCH))
    found = [KeyMismatch(*orjson.loads(value)) for value in connection.execute(noted).scalars()]
    return sorted((each for each in found if each.at > now - _KEPT_MS), key=lambda each: each.process)


def forget_key_mismatches(database: Database) -> int:
    """Delete what nobody has said for an hour; return how many notes went."""
    with database.read() as connection:
        now = connection.execute(select(now_ms())).scalar_one()
        noted = select(InstallationRow.key, InstallationRow.value).where(InstallationRow.key.startswith(_MISMATCH))
        old = [
            key for key, value in connection.execute(noted) if KeyMismatch(*orjson.loads(value)).at <= now - _KEPT_MS
        ]
    if old:
        with database.write() as connection:
            connection.execute(delete(InstallationRow).where(InstallationRow.key.in_(old)))
    return len(old)


def _record(database: Database, reason: str) -> None:
    process = f"{socket.gethostname()}:{os.getpid()} ({Path(sys.argv[0]).name or 'python'})"
    name = hashlib.sha256(process.encode()).hexdigest()[:32]
    try:
        with database.write() as connection:
            now = connection.execute(select(now_ms())).scalar_one()
            set_fact(connection, f"{_MISMATCH}{name}", orjson.dumps([process, reason, now]).decode())
    except Unavailable as error:
        _log.warning("cache.foreign_key_not_recorded", error=str(error))
