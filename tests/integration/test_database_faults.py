"""A database's bad hour is nobody's fault: states of real servers and files are 503 for a caller, and cost no document.

Sessions are given the state that a test wants by `ALTER DATABASE … SET`, which holds for every new session.
"""

import contextlib
import random
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import DBAPIError

from pipeline.database import Database, create_database_engine, engines, now_ms
from pipeline.errors import OutOfTime, Unavailable, operator_sentence
from pipeline.jobs.claims import JOBS, heartbeat
from pipeline.jobs.dispatcher import Dispatcher
from tests.support.polling import eventually
from tests.support.postgres import PostgresServer
from tests.support.write_path import (
    CORPUS,
    InMemoryWorker,
    at_once,
    change_rows,
    expire_lease,
    ingestion,
    job,
    jobs,
    source,
    sources,
    taken,
)

WRITES = 30
OTHERS = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
    "AND backend_type = 'client backend'"
)


def name_of(database: Database) -> str:
    name = database.engine.url.database
    assert name is not None
    return name


@contextmanager
def another(database: Database) -> Iterator[Database]:
    """A second pool on the same database: whoever does something to the first one's sessions."""
    opened = Database(create_database_engine(database.engine.url.render_as_string(hide_password=False)))
    try:
        yield opened
    finally:
        opened.close()


def set_for_new_sessions(database: Database, setting: str) -> None:
    """Give every new session a setting; the pool's connections begin anew."""
    with database.write() as connection:
        connection.execute(text(f'ALTER DATABASE "{name_of(database)}" SET {setting}'))
    database.engine.dispose()


def reset_for_new_sessions(server: PostgresServer, database: Database) -> None:
    """Take every setting back, for sessions that begin now."""
    server.execute(f'ALTER DATABASE "{name_of(database)}" RESET ALL')


def is_untouched(database: Database) -> bool:
    """Tell whether no document was charged with anything."""
    with database.read() as connection:
        rows = connection.execute(text("SELECT state, attempts, last_error FROM documents")).all()
    return {tuple(row) for row in rows} <= {("pending", 0, None), ("served", 0, None)}


def make_due(database: Database) -> None:
    change_rows(database, JOBS, JOBS.c.state == "pending", available_at=now_ms())


def run_until_served(database: Database, worker: InMemoryWorker, *, timeout_s: float = 30) -> None:
    def look() -> bool:
        make_due(database)
        worker.run_all()
        with database.read() as connection:
            behind = connection.execute(text("SELECT count(*) FROM documents WHERE state <> 'served'")).scalar_one()
        return not behind

    eventually(look, timeout_s=timeout_s, describe="every document to be served")


def test_a_lock_on_the_ledger_and_statement_time_outs_cost_no_document_an_attempt(
    postgres_server: PostgresServer, postgres_database: Database
) -> None:
    ingestion(postgres_database).put(CORPUS, sources(3))
    set_for_new_sessions(postgres_database, "statement_timeout = '200ms'")
    worker = InMemoryWorker(postgres_database)
    with another(postgres_database) as other, other.write() as connection:
        connection.execute(text("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE"))
        assert set(worker.run_all()) == {"unavailable"}
    assert is_untouched(postgres_database)
    reset_for_new_sessions(postgres_server, postgres_database)
    postgres_database.engine.dispose()
    run_until_served(postgres_database, worker)
    assert is_untouched(postgres_database)


def test_a_lock_that_outlasts_a_jobs_time_costs_no_document_an_attempt(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion(postgres_database).put(CORPUS, [source("a")])
    monkeypatch.setattr("pipeline.database.units._HELD_UP_S", 0.05)
    (pending,) = jobs(postgres_database)

    def interrupt(*_signal: object) -> None:
        raise OutOfTime(50)

    with another(postgres_database) as other, other.write() as connection:
        connection.execute(text("LOCK TABLE ledger IN ACCESS EXCLUSIVE MODE"))
        before = signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 2.0)  # as Celery's soft limit does
        outcome = InMemoryWorker(postgres_database).run(pending.pk)
        signal.signal(signal.SIGALRM, before)
    assert outcome == "unavailable"
    assert is_untouched(postgres_database)
    assert (job(postgres_database, pending.pk).attempts, job(postgres_database, pending.pk).deliveries) == (0, 0)


def test_a_missing_table_is_no_documents_fault(sqlite_database: Database) -> None:
    ingestion(sqlite_database).put(CORPUS, [source("a")])
    rename = "ALTER TABLE {} RENAME TO {}"
    with sqlite_database.write() as connection:
        connection.execute(text(rename.format("point_intents", "elsewhere")))
    worker = InMemoryWorker(sqlite_database)
    assert worker.run_all() == ["unavailable"]
    assert is_untouched(sqlite_database)
    with sqlite_database.write() as connection:
        connection.execute(text(rename.format("elsewhere", "point_intents")))
    run_until_served(sqlite_database, worker)


def test_a_demoted_primary_is_unavailable_once_and_left_at_once(
    postgres_server: PostgresServer, postgres_database: Database
) -> None:
    ingestion(postgres_database).put(CORPUS, [source("a")])
    set_for_new_sessions(postgres_database, "default_transaction_read_only = on")
    hold_connections(postgres_database, 3)
    with pytest.raises(Unavailable, match="read-only") as refused:
        ingestion(postgres_database).put(CORPUS, [source("b")])
    assert "read-only transaction" in operator_sentence(refused.value)
    hold_connections(postgres_database, 3)
    reset_for_new_sessions(postgres_server, postgres_database)
    # The pool is full of sessions that are read-only for good: only the first to meet one is refused.
    with pytest.raises(Unavailable):
        ingestion(postgres_database).put(CORPUS, [source("b")])
    for number in range(6):
        assert ingestion(postgres_database).put(CORPUS, [source(f"c{number}")]).accepted == 1


def hold_connections(database: Database, count: int) -> None:
    """Fill the pool with connections."""
    barrier = threading.Barrier(count)

    def hold() -> None:
        with database.read() as connection:
            connection.execute(text("SELECT 1"))
            barrier.wait(30)

    assert at_once(*[hold] * count) == [None] * count


def test_a_read_only_server_costs_no_document_an_attempt(
    postgres_server: PostgresServer, postgres_database: Database
) -> None:
    ingestion(postgres_database).put(CORPUS, sources(2))
    set_for_new_sessions(postgres_database, "default_transaction_read_only = on")
    (first, *_) = jobs(postgres_database)
    with pytest.raises(Unavailable):
        InMemoryWorker(postgres_database).run(first.pk)
    assert is_untouched(postgres_database)
    reset_for_new_sessions(postgres_server, postgres_database)
    postgres_database.engine.dispose()
    run_until_served(postgres_database, InMemoryWorker(postgres_database))


def test_a_session_that_was_idle_too_long_is_always_unavailable(postgres_database: Database) -> None:
    set_for_new_sessions(postgres_database, "idle_in_transaction_session_timeout = '20ms'")
    with another(postgres_database) as other:
        for _ in range(3):
            refusal(lambda: idle_too_long(postgres_database, other))
    postgres_database.ping()


def idle_too_long(database: Database, other: Database) -> None:
    with database.write() as connection:
        connection.execute(text("SELECT 1"))
        eventually(lambda: ended(other), describe="the session to be ended")
        connection.execute(text("SELECT 1"))


def ended(other: Database) -> bool:
    """Tell whether this is the only session."""
    with other.write() as connection:
        connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        return not connection.execute(OTHERS).all()


def test_a_transaction_that_is_aborted_is_unavailable_whatever_is_asked_next(postgres_database: Database) -> None:
    def go_on_after_an_error() -> None:
        with postgres_database.write() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '10ms'"))
            with contextlib.suppress(DBAPIError):
                connection.execute(text("SELECT pg_sleep(5)"))
            connection.execute(text("SELECT 1"))

    assert "aborted" in operator_sentence(refusal(go_on_after_an_error))


@pytest.mark.parametrize(
    ("login", "options", "said"),
    [
        ("locked:wrong%23secret", "", "password authentication failed"),
        ("nobody_of_that_name", "", "does not exist"),
        ("full", "", "too many connections"),
        ("postgres", "&sslmode=bogus", "invalid sslmode value"),
        ("postgres", "&no_such_option=1", "no_such_option"),
    ],
)
def test_a_refused_connection_says_what_the_driver_said_and_no_secret(
    postgres_server: PostgresServer, login: str, options: str, said: str
) -> None:
    postgres_server.ensure_role("locked", "PASSWORD 'right'", method="scram-sha-256")
    postgres_server.ensure_role("full", "CONNECTION LIMIT 0", method="trust")
    url = postgres_server.url().replace("postgres@", f"{login}@") + options
    database = Database(create_database_engine(url))
    with pytest.raises(Unavailable) as refused:
        database.ping()
    database.close()
    sentence = operator_sentence(refused.value)
    assert said in sentence
    assert "secret" not in sentence
    assert said not in str(refused.value), "a caller of HTTP is not told"


def test_a_database_that_does_not_exist_is_named(postgres_server: PostgresServer) -> None:
    database = Database(create_database_engine(postgres_server.url("no_such_database")))
    with pytest.raises(Unavailable) as refused:
        database.ping()
    database.close()
    assert 'database "no_such_database" does not exist' in operator_sentence(refused.value)


@pytest.mark.long
def test_sessions_that_end_at_any_point_cost_no_document_anything(postgres_database: Database) -> None:
    over = threading.Event()
    worker = InMemoryWorker(postgres_database)

    def write() -> int:
        refused = 0
        try:
            for number in range(WRITES):
                while not is_accepted(postgres_database, number):
                    refused += 1
        finally:
            over.set()
        return refused

    def work() -> None:
        while not over.is_set():
            with contextlib.suppress(Unavailable):
                make_due(postgres_database)
                worker.run_all()

    refused, worked, ended_them = at_once(write, work, lambda: end_sessions(postgres_database, over))
    assert (worked, ended_them) == (None, None), "only Unavailable may come of it"
    assert isinstance(refused, int), refused
    for row in jobs(postgres_database, state="running"):
        expire_lease(postgres_database, row.pk)
    Dispatcher(postgres_database, NoPublisher(), republish_s=1).tick()
    run_until_served(postgres_database, worker)
    assert is_untouched(postgres_database)


def is_accepted(database: Database, number: int) -> bool:
    """Write a change; tell whether it was accepted."""
    try:
        ingestion(database).put(CORPUS, [source(f"d{number % 8}", f"text {number}")])
    except Unavailable:
        return False
    return True


def end_sessions(database: Database, over: threading.Event) -> None:
    """End one session after the other until it is over, ever more seldom."""
    chance = random.Random(20261130)  # which and when, no secret
    longest_s = 0.01
    with another(database) as other:
        while not over.wait(chance.uniform(0.0, longest_s)):
            longest_s *= 1.1
            with other.write() as connection:
                pids = list(connection.execute(OTHERS).scalars())
                if pids:
                    victim = {"pid": chance.choice(pids)}
                    connection.execute(text("SELECT pg_terminate_backend(:pid)"), victim)


class NoPublisher:
    """A broker that takes every job and gives it to nobody."""

    def publish(self, jobs: object) -> None:
        """Take them."""

    def has_lost_messages(self, queue: str) -> bool:  # noqa: ARG002  # the protocol's
        """Nothing is lost."""
        return False


def test_a_job_is_given_back_although_its_session_ends_again_and_again(postgres_database: Database) -> None:
    ingestion(postgres_database).put(CORPUS, [source("a")])
    (pending,) = jobs(postgres_database)
    left = iter(range(3))

    def end(connection: Connection, _cursor: object, statement: str, *_more: object) -> None:
        gives_back = "attempts=(jobs.attempts +" in statement
        if "point_intents" in statement or (gives_back and next(left, None) is not None):
            end_session(postgres_database, connection)

    event.listen(postgres_database.engine, "before_cursor_execute", end)
    assert InMemoryWorker(postgres_database).run(pending.pk) == "unavailable"
    row = job(postgres_database, pending.pk)
    assert (row.state, row.attempts, row.deliveries, row.breadcrumb) == ("pending", 0, 0, None)
    assert next(left, None) is None, "its session ended three times while it was given back"


def end_session(database: Database, connection: Connection) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None
    with another(database) as other, other.write() as ending:
        ending.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": driver.info.backend_pid})


def test_a_lease_that_ended_while_the_database_was_away_is_no_death(
    postgres_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion(postgres_database).put(CORPUS, [source("a")])
    (pending,) = jobs(postgres_database)
    now_s = 0.0
    monkeypatch.setattr("pipeline.jobs.dispatcher.time.monotonic", lambda: now_s)
    dispatcher = Dispatcher(postgres_database, NoPublisher(), republish_s=1, lease_s=30)
    assert dispatcher.tick().rescued == 0
    held = taken(postgres_database, pending.pk)
    expire_lease(postgres_database, pending.pk)
    now_s = 40.0  # no tick for so long: the database was away
    assert dispatcher.tick().rescued == 0
    heartbeat(postgres_database, held)
    expire_lease(postgres_database, pending.pk)
    now_s = 48.0
    assert dispatcher.tick().rescued == 0
    now_s = 56.0
    assert dispatcher.tick().rescued == 1


# SQLite


def open_anew(database: Database, options: str = "") -> Database:
    return Database(create_database_engine(f"sqlite:///file:{database.engine.url.database}?uri=true{options}"))


def sqlite_path(database: Database) -> Path:
    assert database.engine.url.database is not None
    return Path(database.engine.url.database)


def refusal(work: Callable[[], object]) -> Unavailable:
    with pytest.raises(Unavailable) as refused:
        work()
    assert refused.value.service == "database"
    return refused.value


def put_one(database: Database, name: str = "b") -> object:
    return ingestion(database).put(CORPUS, [source(name, "word " * 2000)])


def test_a_full_disk_is_unavailable_and_costs_no_document_an_attempt(sqlite_database: Database) -> None:
    ingestion(sqlite_database).put(CORPUS, sources(3))
    limit = {"pages": 1}

    @event.listens_for(sqlite_database.engine, "checkout")
    def _fill(connection: sqlite3.Connection, *_more: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit['pages']}")

    assert "full" in operator_sentence(refusal(lambda: [put_one(sqlite_database, f"x{n}") for n in range(50)]))
    worker = InMemoryWorker(sqlite_database)
    make_due(sqlite_database)
    worker.run_all()
    assert is_untouched(sqlite_database)
    limit["pages"] = 1_000_000
    run_until_served(sqlite_database, worker)


def test_a_read_only_file_is_unavailable(sqlite_database: Database) -> None:
    sqlite_database.close()
    read_only = open_anew(sqlite_database, "&mode=ro")
    assert "readonly" in operator_sentence(refusal(lambda: put_one(read_only)))
    read_only.ping()
    read_only.close()


def test_a_corrupt_file_is_unavailable_and_no_documents_fault(sqlite_database: Database, tmp_path: Path) -> None:
    ingestion(sqlite_database).put(CORPUS, [source("a")])
    sqlite_database.close()
    damaged = tmp_path / "damaged.db"
    shutil.copyfile(sqlite_path(sqlite_database), damaged)
    with damaged.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (damaged.stat().st_size - 4096))
    for path, said in ((damaged, "malformed"), (write_nonsense(tmp_path), "not a database")):
        database = Database(create_database_engine(f"sqlite:///{path}"))
        assert said in operator_sentence(refusal(lambda: put_one(database)))  # noqa: B023  # called at once
        database.close()


def write_nonsense(folder: Path) -> Path:
    path = folder / "nonsense.db"
    path.write_bytes(b"no database at all " * 300)
    return path


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    database = Database(create_database_engine(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}"))
    assert "unable to open" in operator_sentence(refusal(database.ping))
    database.close()


def test_a_lock_that_is_held_costs_no_document_an_attempt(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion(sqlite_database).put(CORPUS, sources(2))
    monkeypatch.setattr(engines, "BUSY_TIMEOUT_MS", 20)
    impatient = open_anew(sqlite_database)
    (first, *_) = jobs(sqlite_database)
    with sqlite_database.write():
        assert "locked" in operator_sentence(refusal(lambda: InMemoryWorker(impatient).run(first.pk)))
    assert is_untouched(sqlite_database)
    run_until_served(sqlite_database, InMemoryWorker(impatient))
    impatient.close()
