"""One engine recipe per database.

SQLite: WAL; every writing unit of work begins with BEGIN IMMEDIATE, because SQLAlchemy's default (a deferred BEGIN
that upgrades to a writer later) loses concurrent read-then-write updates; readers begin deferred and never block.
PostgreSQL: READ COMMITTED with explicit row locks; connections are tested before use.
"""

import sqlite3
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from pipeline.errors import ConfigurationError

WRITING = "forefill_writing"
"""Execution option of a connection whose transaction will write."""

BUSY_TIMEOUT_MS = 5_000
"""How long a SQLite writer waits for another before it reports the database as busy."""


def create_database_engine(url: str, *, pool_size: int = 5, durable: bool = True) -> Engine:
    """Create the engine for a database URL.

    Args:
        url: `sqlite:///PATH` or `postgresql+psycopg://…`.
        pool_size: Connections kept open, per process.
        durable: SQLite only: sync to disk at every commit. Needed wherever a commit is promised to a caller (202);
            workers may lose their last commits to a power cut, since their work is redone.

    Raises:
        ConfigurationError: The URL is malformed or names another database.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("FOREFILL_DATABASE_URL is no database URL") from error
    match parsed.get_backend_name():
        case "sqlite":
            return _sqlite_engine(parsed, pool_size=pool_size, durable=durable)
        case "postgresql":
            return create_engine(parsed, pool_size=pool_size, max_overflow=5, pool_pre_ping=True, pool_timeout=5)
        case other:
            raise ConfigurationError(f"database {other!r} is not supported: use sqlite or postgresql")


def _sqlite_engine(url: URL, *, pool_size: int, durable: bool) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=5, pool_timeout=5)

    @event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        _write_ahead(connection)
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA temp_store = MEMORY")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get(WRITING, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _is_busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY


@retry(
    retry=retry_if_exception(_is_busy),
    stop=stop_after_delay(BUSY_TIMEOUT_MS / 1000),
    wait=wait_random(0.001, 0.02),
    reraise=True,
)
def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL; on a new file SQLite does not wait for others who do the same, whatever the busy timeout says."""
    connection.execute("PRAGMA journal_mode = WAL")
