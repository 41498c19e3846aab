"""One engine recipe per database.

SQLite: WAL; every writing unit of work begins with BEGIN IMMEDIATE, because SQLAlchemy's default (a deferred BEGIN
that upgrades to a writer later) loses concurrent read-then-write updates; readers begin deferred and never block.
PostgreSQL: READ COMMITTED with explicit row locks; connections are tested before use. Behind a pooler that gives every
transaction another session (PgBouncer), statements are not prepared: no session has what another one prepared.

An error that other pooled connections may have as well, such as that of a demoted primary, replaces all of them.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL, ExceptionContext
from sqlalchemy.exc import ArgumentError, DBAPIError
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from pipeline.database.faults import MEANINGS, fault_of
from pipeline.errors import ConfigurationError, OutOfTime

WRITING = "forefill_writing"
"""Execution option of a connection whose transaction will write."""

BUSY_TIMEOUT_MS = 5_000
"""How long a SQLite writer waits for another before it reports the database as busy."""

_CANCEL_TIMEOUT_S = 2.0
_CHECKS_CLIENTS = 140_000
"""Version of PostgreSQL that can look whether the client of a running statement is still there."""
_CLIENT_CHECK_MS = 5_000
"""How long the session of a killed worker may hold its locks while it waits for another one."""

_POSTGRES_OPTIONS: Mapping[str, int] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""libpq's, unless the URL says otherwise: its own defaults wait two minutes to connect, and two hours on a link that
went silent. Seconds, but for the last, which is in milliseconds."""


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
    except (ArgumentError, ValueError):  # `from None`: what they say quotes the URL with its password
        raise ConfigurationError("FOREFILL_DATABASE_URL is no database URL") from None
    match parsed.get_backend_name():
        case "sqlite":
            engine = _sqlite_engine(parsed, pool_size=pool_size, durable=durable)
        case "postgresql":
            engine = _postgres_engine(parsed, pool_size=pool_size)
        case other:
            raise ConfigurationError(f"database {other!r} is not supported: use sqlite or postgresql")
    event.listen(engine, "handle_error", _renew_pool)
    return engine


def url_secrets(url: URL) -> frozenset[str]:
    """Return what of a database's URL must appear in no message, as it is and as it is written in a URL."""
    options = (url.query.get(name, ()) for name in ("password", "sslpassword"))
    given = [
        url.password or "",
        *(each for option in options for each in ([option] if isinstance(option, str) else option)),
    ]
    return frozenset(
        form for secret in given if secret for form in (secret, quote(secret, safe=""), quote_plus(secret))
    )


def is_pooled(connection: Any) -> bool:
    """Tell whether a pooler stands between: it makes up the process number that a client gets when it connects.

    Args:
        connection: psycopg's own.
    """
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is not None and row[0] != connection.info.backend_pid


def _cancel_interrupted(context: ExceptionContext) -> None:
    """End at the server what a job waited for when its time was over: it would keep its locks until it is done."""
    if isinstance(context.original_exception, OutOfTime) and context.connection is not None:
        driver: Any = context.connection.connection.driver_connection
        driver.cancel_safe(timeout=_CANCEL_TIMEOUT_S)


def _renew_pool(context: ExceptionContext) -> None:
    """Have SQLAlchemy take an error for a lost connection: that drops this one now and the others at their next use."""
    error = context.sqlalchemy_exception
    meaning = MEANINGS.get(fault_of(error)) if isinstance(error, DBAPIError) else None
    if meaning is not None and meaning.renews_pool:
        context.is_disconnect = True


def _postgres_engine(url: URL, *, pool_size: int) -> Engine:
    options = {name: value for name, value in _POSTGRES_OPTIONS.items() if name not in url.query}
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=5,
        pool_pre_ping=True,
        pool_timeout=5,
        hide_parameters=True,  # an error's text must not quote a document
        connect_args=options,
    )

    event.listen(engine, "handle_error", _cancel_interrupted)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: Any) -> None:
        connection.autocommit = True  # one round trip instead of three
        if is_pooled(connection):
            connection.prepare_threshold = None
        elif connection.info.server_version >= _CHECKS_CLIENTS:
            connection.execute(f"SET client_connection_check_interval = {_CLIENT_CHECK_MS}")
        connection.autocommit = False

    return engine


def _sqlite_engine(url: URL, *, pool_size: int, durable: bool) -> Engine:
    engine = create_engine(url, pool_size=pool_size, max_overflow=5, pool_timeout=5, hide_parameters=True)

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
