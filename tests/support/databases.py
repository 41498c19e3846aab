"""Fixtures of databases with the schema in place: upgraded once a session, copied for each test."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.database import Database, create_database_engine
from pipeline.services.schema import upgrade
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file at the newest revision."""
    path = tmp_path_factory.mktemp("template") / "forefill.db"
    _upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """Name of a PostgreSQL database at the newest revision."""
    name = postgres_server.create_database()
    _upgrade(postgres_server.url(name))
    return name


@pytest.fixture
def sqlite_database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """An upgraded SQLite database."""
    path = tmp_path / "upgraded.db"
    shutil.copyfile(sqlite_template, path)
    yield from _opened(f"sqlite:///{path}")


@pytest.fixture
def postgres_database(postgres_server: PostgresServer, postgres_template: str) -> Iterator[Database]:
    """An upgraded PostgreSQL database, dropped after the test."""
    name = postgres_server.create_database(template=postgres_template)
    yield from _opened(postgres_server.url(name))
    postgres_server.drop_database(name)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """An upgraded database; a test that asks for it runs on SQLite and on PostgreSQL."""
    opened: Database = request.getfixturevalue(f"{request.param}_database")
    return opened


def _opened(url: str) -> Iterator[Database]:
    database = Database(create_database_engine(url, pool_size=8))
    try:
        yield database
    finally:
        database.close()


def _upgrade(url: str) -> None:
    database = Database(create_database_engine(url))
    upgrade(database)
    database.close()
