"""The engine recipes: what SQLAlchemy's defaults lose, they keep."""

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, text

from pipeline.database import Database, create_database_engine, engines
from pipeline.errors import ConfigurationError, Unavailable
from tests.support.polling import eventually
from tests.support.write_path import Waiter, at_once

INCREMENTS = 40


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """A database with one counter that stands at 0."""
    database = Database(create_database_engine(url))
    with database.write() as connection:
        connection.execute(text("CREATE TABLE counters (id INTEGER PRIMARY KEY, value INTEGER NOT NULL)"))
        connection.execute(text("INSERT INTO counters VALUES (1, 0)"))
    try:
        yield database
    finally:
        database.close()


def increment(connection: Connection, *, lock: str = "") -> None:
    """Read, then write what was read plus one: what the service does with every head."""
    value = connection.execute(text(f"SELECT value FROM counters WHERE id = 1 {lock}")).scalar_one()
    connection.execute(text("UPDATE counters SET value = :value WHERE id = 1"), {"value": value + 1})


def counted(database: Database) -> int:
    with database.read() as connection:
        return int(connection.execute(text("SELECT value FROM counters")).scalar_one())


def in_two_threads(step: Callable[[], None]) -> int:
    """Run a step many times in each of two threads; return how often it said that it succeeded."""

    def many() -> int:
        done = 0
        for _ in range(INCREMENTS):
            try:
                step()
            except Exception:  # noqa: BLE001  # an increment that says it failed is not lost
                continue
            done += 1
        return done

    return sum(int(str(done)) for done in at_once(many, many))


def interleaved(engine: Engine) -> tuple[int, int]:
    """Let two transactions read before either writes, and commit what can be committed; return successes and value."""
    successes = 0
    with engine.connect() as first, engine.connect() as second:
        values = [c.execute(text("SELECT value FROM counters WHERE id = 1")).scalar_one() for c in (first, second)]
        for connection, value in zip((first, second), values, strict=True):
            connection.execute(text("UPDATE counters SET value = :value WHERE id = 1"), {"value": value + 1})
            connection.commit()
            successes += 1
    with engine.connect() as connection:
        return successes, connection.execute(text("SELECT value FROM counters WHERE id = 1")).scalar_one()


def test_sqlalchemys_default_loses_an_update_without_an_error(sqlite_url: str, postgres_url: str) -> None:
    for url in (sqlite_url, postgres_url):
        with opened(url):
            engine = create_engine(url)
            assert interleaved(engine) == (2, 1), "two said that they had counted, and one is left"
            engine.dispose()


def test_a_writing_unit_of_work_loses_no_update_on_sqlite(sqlite_url: str) -> None:
    with opened(sqlite_url) as database:

        def step() -> None:
            with database.write() as connection:
                increment(connection)

        assert in_two_threads(step) == counted(database) == 2 * INCREMENTS


def test_a_locked_row_loses_no_update_on_postgres(postgres_url: str) -> None:
    with opened(postgres_url) as database:

        def step() -> None:
            with database.write() as connection:
                increment(connection, lock="FOR UPDATE")

        assert in_two_threads(step) == counted(database) == 2 * INCREMENTS


def test_a_second_writer_waits_for_the_first(database_url: str) -> None:
    lock = "" if database_url.startswith("sqlite") else "FOR UPDATE"
    with opened(database_url) as database:

        def step() -> None:
            with database.write() as connection:
                increment(connection, lock=lock)

        with database.write() as connection:
            increment(connection, lock=lock)
            second = Waiter(database, step)
        assert second.result() is None
        assert counted(database) == 2


def test_a_reader_neither_waits_for_a_writer_nor_sees_what_is_not_committed(database_url: str) -> None:
    with opened(database_url) as database:
        with database.write() as connection:
            increment(connection)
            assert counted(database) == 0
        assert counted(database) == 1


def test_a_writer_does_not_wait_for_a_reader(database_url: str) -> None:
    with opened(database_url) as database, database.read() as reading:
        reading.execute(text("SELECT value FROM counters")).all()
        with database.write() as connection:
            increment(connection)


def test_an_error_rolls_the_whole_unit_back(database_url: str) -> None:
    def fail(database: Database) -> None:
        with database.write() as connection:
            increment(connection)
            raise LookupError

    with opened(database_url) as database:
        with pytest.raises(LookupError):
            fail(database)
        assert counted(database) == 0


def test_a_writer_that_waits_too_long_on_sqlite_is_told_that_the_database_is_busy(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_MS", 50)
    with opened(sqlite_url) as database, database.write() as connection:
        increment(connection)
        late = Waiter(database, lambda: _count_once(database)).result()
    assert isinstance(late, Unavailable)
    assert (late.service, late.retryable) == ("database", True)


def test_a_lock_that_postgres_refuses_is_told_as_busy(postgres_url: str) -> None:
    with opened(postgres_url) as database, database.write() as connection:
        increment(connection, lock="FOR UPDATE")
        with pytest.raises(Unavailable) as refused, database.write() as second:
            increment(second, lock="FOR UPDATE NOWAIT")
    assert refused.value.service == "database"


def test_a_database_that_is_not_there_is_unavailable() -> None:
    database = Database(create_database_engine("postgresql+psycopg://nobody@127.0.0.1:1/none"))
    with pytest.raises(Unavailable):
        database.ping()


@pytest.mark.parametrize(("durability", "synchronous"), [("durable", 2), ("relaxed", 1)])
def test_a_durable_engine_syncs_at_every_commit(sqlite_url: str, durability: str, synchronous: int) -> None:
    engine = create_database_engine(sqlite_url, durable=durability == "durable")
    with engine.connect() as connection:
        pragmas = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
        ]
    engine.dispose()
    assert pragmas == [synchronous, "wal", 1, engines.BUSY_TIMEOUT_MS]


def test_a_new_sqlite_file_can_be_opened_by_many_at_once(tmp_path: Path) -> None:
    def open_it(path: Path) -> None:
        database = Database(create_database_engine(f"sqlite:///{path}"))
        try:
            database.ping()
        finally:
            database.close()

    for number in range(10):
        results = at_once(*[partial(open_it, tmp_path / f"{number}.db")] * 8)
        assert results == [None] * 8


def test_the_databases_clock_is_utc_milliseconds(database_url: str) -> None:
    with opened(database_url) as database:
        first, second = database.clock_ms(), database.clock_ms()
        with sqlite3.connect(":memory:") as connection:
            (now_s,) = connection.execute("SELECT unixepoch('now')").fetchone()
        connection.close()
        assert first <= second
        assert abs(second / 1000 - now_s) < 5


@pytest.mark.parametrize("url", ["mysql://x/y", "no url at all"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        create_database_engine(url)


def _count_once(database: Database) -> None:
    with database.write() as connection:
        increment(connection)


def test_a_pool_that_is_used_up_is_unavailable(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(sqlite_url) as database:
        monkeypatch.setattr(database.engine.pool, "_timeout", 0.05)
        leave = threading.Event()
        holders = [Waiter(database, lambda: _hold(database, leave)) for _ in range(10)]
        eventually(lambda: database.engine.pool.checkedout() == 10)  # type: ignore[attr-defined]  # a queue pool's
        with pytest.raises(Unavailable, match="connections"):
            database.ping()
        leave.set()
        assert [holder.result() for holder in holders] == [None] * 10


def _hold(database: Database, leave: threading.Event) -> None:
    with database.read():
        leave.wait(30)
