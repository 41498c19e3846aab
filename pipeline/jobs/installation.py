"""Facts about this installation, by name."""

from sqlalchemy import Connection, select

from pipeline.database import upsert
from pipeline.jobs.tables import InstallationRow

CACHE_EPOCH_AT = "cache_epoch_at"
"""When the cache's present epoch began, in ms of the database's clock: entries stored before are lost."""


def get_fact(connection: Connection, key: str) -> str | None:
    """Return a fact, None if it was never recorded."""
    return connection.execute(select(InstallationRow.value).where(InstallationRow.key == key)).scalar_one_or_none()


def set_fact(connection: Connection, key: str, value: str) -> None:
    """Record a fact in place of the one before."""
    table = InstallationRow.metadata.tables["installation"]
    upsert(connection, table, [{"key": key, "value": value}], key=["key"], update=["value"])


def cache_epoch_at(connection: Connection) -> int:
    """Return when the cache's present epoch began, in ms; 0 before the first loss."""
    return int(get_fact(connection, CACHE_EPOCH_AT) or 0)
