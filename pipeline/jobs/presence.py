"""Who is alive: workers and beats that say so, and the one dispatcher that leads."""

import os
from dataclasses import dataclass

from sqlalchemy import Connection, delete, or_, select, update

from pipeline.database import Database, insert_missing, now_ms, rows_affected, upsert
from pipeline.jobs.tables import LeadershipRow, WorkerRow

BEAT_PREFIX = "beat@"
"""Before the host in a beat's name."""

_FORGOTTEN_MS = 3_600_000


def announce_worker(database: Database, name: str, *, queues: list[str], concurrency: int) -> None:
    """Say that a process is alive and what it consumes, which is nothing for beat; forget those silent for an hour."""
    with database.write() as connection:
        now = connection.execute(select(now_ms())).scalar_one()
        row = {
            "name": name,
            "queues": ",".join(queues),
            "concurrency": concurrency,
            "started_at": now,
            "seen_at": now,
        }
        table = WorkerRow.metadata.tables["workers"]
        upsert(connection, table, [row], key=["name"], update=["queues", "concurrency", "seen_at"])
        connection.execute(delete(WorkerRow).where(WorkerRow.seen_at < now - _FORGOTTEN_MS))


def retire_worker(database: Database, name: str) -> None:
    """Say that a process is gone."""
    with database.write() as connection:
        connection.execute(delete(WorkerRow).where(WorkerRow.name == name))


def lead(database: Database, role: str, *, holder: str, lease_s: float) -> bool:
    """Take or keep the lead of a role; return whether this process has it.

    Several processes race here at every tick: one conditional UPDATE decides.
    """
    until = now_ms() + round(lease_s * 1000)
    with database.write() as connection:
        row = {"role": role, "holder": holder, "lease_until": 0}
        insert_missing(connection, LeadershipRow.metadata.tables["leaderships"], [row], returning=["role"])
        statement = (
            update(LeadershipRow)
            .where(
                LeadershipRow.role == role,
                or_(LeadershipRow.holder == holder, LeadershipRow.lease_until < now_ms()),
            )
            .values(holder=holder, lease_until=until)
        )
        return rows_affected(connection.execute(statement)) == 1


def resign(database: Database, role: str, *, holder: str) -> None:
    """Give the lead up, so that another process has it at once."""
    with database.write() as connection:
        connection.execute(
            update(LeadershipRow)
            .where(LeadershipRow.role == role, LeadershipRow.holder == holder)
            .values(lease_until=0)
        )


def find_leader(connection: Connection, role: str) -> str | None:
    """Return who leads a role right now, None if nobody does."""
    statement = select(LeadershipRow.holder).where(LeadershipRow.role == role, LeadershipRow.lease_until >= now_ms())
    return connection.execute(statement).scalar_one_or_none()


def beat_name(pid: int | None = None) -> str:
    """Return the name by which a beat of this host says that it ticks.

    Args:
        pid: Its process id; by default this process is the beat.
    """
    return f"{BEAT_PREFIX}{os.uname().nodename}:{os.getpid() if pid is None else pid}"


def list_beats(connection: Connection, *, alive_ms: int = 30_000) -> dict[str, float]:
    """Return the beats that ticked within a time, by name, and how many seconds ago each did."""
    age_ms = now_ms() - WorkerRow.seen_at
    ticked = (WorkerRow.seen_at >= now_ms() - alive_ms, WorkerRow.queues == "")
    rows = connection.execute(select(WorkerRow.name, age_ms).where(*ticked).order_by(WorkerRow.name))
    return {name: max(0, age) / 1000 for name, age in rows if name.startswith(BEAT_PREFIX)}


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process that was seen lately."""

    name: str
    queues: tuple[str, ...]
    concurrency: int
    seen_s: float
    """Seconds since it last said that it is alive."""


def list_workers(connection: Connection, *, alive_ms: int = 30_000) -> list[Worker]:
    """Return the workers seen within a time, by name."""
    age_ms = now_ms() - WorkerRow.seen_at
    statement = (
        select(WorkerRow.name, WorkerRow.queues, WorkerRow.concurrency, age_ms)
        .where(WorkerRow.seen_at >= now_ms() - alive_ms, WorkerRow.queues != "")
        .order_by(WorkerRow.name)
    )
    return [
        Worker(name, tuple(queues.split(",")), concurrency, max(0, age) / 1000)
        for name, queues, concurrency, age in connection.execute(statement)
    ]
