"""Debian's PgBouncer in transaction mode before the tests' PostgreSQL: every transaction may get another session."""

import shutil
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import PostgresServer
from tests.support.processes import Processes

_PORT = 6432
"""Only names the socket's file."""
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"


def start_pgbouncer(processes: Processes, server: PostgresServer, *, sessions: int) -> None:
    """Start it in the server's folder and wait until it answers; skip the test where it is not installed.

    Args:
        processes: Ends it.
        server: Stands behind it.
        sessions: Of the server, for all clients together.
    """
    program = shutil.which("pgbouncer", path=_PLACES)
    if program is None:
        pytest.skip("PgBouncer is not installed (apt-get install pgbouncer)")
    settings = server.home / "pgbouncer.ini"
    settings.write_text(_settings(server.home, sessions))
    settings.chmod(0o644)
    process = processes.start([program, settings], name="pgbouncer", cwd=server.home, owner=server.owner)
    process.wait_until(lambda: _answers(server.home), timeout_s=30)


def pooled_url(server: PostgresServer, database: str) -> str:
    """SQLAlchemy URL of a database behind the pooler."""
    return f"{server.url(database)}&port={_PORT}"


def _settings(home: Path, sessions: int) -> str:
    return f"""
[databases]
* = host={home} user=postgres
[pgbouncer]
listen_port = {_PORT}
unix_socket_dir = {home}
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 200
"""


def _answers(home: Path) -> bool:
    try:
        with psycopg.connect(host=str(home), port=_PORT, user="postgres", dbname="postgres") as connection:
            connection.execute("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True
