"""Who works is judged by what they write into SQL, and by nothing while it takes no writes: real databases."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import cast

import pytest
from sqlalchemy import text

from pipeline.cli.stack.child import Child
from pipeline.cli.stack.services import SqlSigns
from pipeline.database import Database, engines
from pipeline.errors import Unavailable
from pipeline.services.diagnosis import Level, database_writes, working
from pipeline.settings import Settings


@dataclass
class OldProcess:
    """As far as a child is asked: up for an hour, and silent."""

    pid: int = 4711
    age_s: float = 3600.0


SILENT = cast("Child", OldProcess())


@contextmanager
def locked(database: Database) -> Iterator[None]:
    """Another process writes, and does not end."""
    path = database.engine.url.database
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@pytest.fixture
def impatient(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_MS", 50)
    sqlite_database.engine.dispose()
    return sqlite_database


def judges(signs: SqlSigns) -> list[Callable[[], bool]]:
    return [
        lambda: signs.is_announced("bulk", SILENT),
        lambda: signs.leads(SILENT),
        lambda: signs.ticks(SILENT),
    ]


def test_who_could_have_said_something_and_did_not_does_not_work(database: Database) -> None:
    assert [judge() for judge in judges(SqlSigns(database))] == [False, False, False]


def test_while_the_database_is_locked_nobody_is_judged(impatient: Database) -> None:
    with locked(impatient):
        for judge in judges(SqlSigns(impatient)):
            with pytest.raises(Unavailable, match="busy"):
                judge()


def test_while_a_server_is_read_only_nobody_is_judged(postgres_database: Database) -> None:
    name = postgres_database.engine.url.database
    with postgres_database.write() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    postgres_database.engine.dispose()
    signs = SqlSigns(postgres_database)
    with pytest.raises(Unavailable, match="refuses writes"):
        signs.leads(SILENT)


def test_doctor_does_not_advise_second_workers_while_nobody_can_say_that_they_live(impatient: Database) -> None:
    with locked(impatient):
        assert "busy" in (database_writes.DatabaseWriteProbe(impatient).problem() or "")
        findings = list(working.check(Settings(), impatient, takes_writes=False))
    assert not any("start `" in (finding.remedy or "") for finding in findings)
    assert [finding.level for finding in findings if finding.subject == "workers"] == [Level.WARN]
