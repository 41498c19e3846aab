"""Who is alive: workers that say so, and the one dispatcher that leads."""

from sqlalchemy import delete, or_, select, update

from pipeline.database import Database, insert_missing, now_ms, rows_affected, upsert
from pipeline.jobs.tables import LeadershipRow, WorkerRow

_FORGOTTEN_MS = 3_600_000


def announce_worker(database: Database, name: str, *, queues: list[str], concurrency: int) -> None:
    """Say that a worker process is alive and what it consumes; forget those silent for an hour."""
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
    """Say that a worker process is gone."""
    with database.write() as connection:
        connection.execute(delete(WorkerRow).where(WorkerRow.name == name))


def lead(database: Database, role: str, *, holder: str, lease_s: float) -> bool:
    """Take or keep the lead of a role; return whether this process has it.

    Several processes race here at every tick: one conditional UPDATE decides.
    """
    until = now_ms() + round(lease_s * 1000)
    with database.write() as connection:
        row = {"role": role, "holder": holder, "lease_until": 0}
        insert_missing(
            connection, LeadershipRow.metadata.tables["leaderships"], [row], key=["role"], returning=["role"]
        )
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
