"""Servers and processes shared by the whole suite. A server lives for the session, its content for one test."""

import gc
import signal
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.valkey import ValkeyServer

pytest_plugins = ["tests.support.databases"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Begun in the background of a script, and so would be every process that a test starts and then interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared machine may be slow for a moment; what is slow for long is caught by the time-out of a test.
settings.register_profile("forefill", deadline=None)
settings.load_profile("forefill")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without the garbage collector, which then never looks at modules and tests again: they all stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Tests marked `anyio` are coroutines that run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    """One Valkey for the session, without persistence; use `cache_server` or `broker_server` for a clean one."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def cache_server(valkey_server: ValkeyServer) -> ValkeyServer:
    """A running, empty Valkey. A test may kill or pause it: the next one gets it back in order."""
    valkey_server.ensure_running()
    valkey_server.flush()
    return valkey_server


@pytest.fixture
def cache_url(cache_server: ValkeyServer) -> str:
    """URL of a running, empty Valkey."""
    return cache_server.url


@pytest.fixture(scope="session")
def _broker() -> Iterator[ValkeyServer]:
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def broker_server(_broker: ValkeyServer) -> ValkeyServer:
    """A running, empty Valkey that is another process than the cache."""
    _broker.ensure_running()
    _broker.flush()
    return _broker


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL 18 for the session; use `postgres_url` for a database of one's own."""
    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL of a fresh, empty PostgreSQL database, dropped after the test."""
    name = postgres_server.create_database()
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """SQLAlchemy URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'forefill.db'}"


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of an empty database; a test that asks for it runs on SQLite and on PostgreSQL."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts processes; all of them, and what they started, are gone after the test."""
    with tempfile.TemporaryDirectory(prefix="ff-run-") as folder, Processes(Path(folder)) as started:
        yield started
