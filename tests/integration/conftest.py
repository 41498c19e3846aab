"""Commands on an upgraded SQLite file and two real Valkeys; no worker runs."""

from pathlib import Path

import pytest

from tests.support.commands import Commands
from tests.support.ports import LOOPBACK
from tests.support.valkey import ValkeyServer


@pytest.fixture
def commands(tmp_path: Path, sqlite_url: str, cache_server: ValkeyServer, broker_server: ValkeyServer) -> Commands:
    """Commands without a worker, a dispatcher or Qdrant: what they accept waits."""
    made = Commands(
        tmp_path,
        {
            "FOREFILL_DATABASE_URL": sqlite_url,
            "FOREFILL_CACHE_URL": cache_server.url,
            "FOREFILL_BROKER_URL": broker_server.url,
            "FOREFILL_QDRANT_URL": f"http://{LOOPBACK}:1",
        },
    )
    made.upgrade()
    return made
