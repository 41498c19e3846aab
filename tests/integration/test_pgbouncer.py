"""PgBouncer in transaction mode: no session is one's own for longer than a transaction, and everything works."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from sqlalchemy import text

from pipeline.database import Database, create_database_engine
from pipeline.jobs.presence import lead
from pipeline.services.corpus_removal import drop_corpus
from pipeline.services.diagnosis.database import check
from pipeline.services.schema import upgrade
from pipeline.settings import Settings
from tests.support.pgbouncer import pooled_url, start_pgbouncer
from tests.support.postgres import PostgresServer
from tests.support.processes import Processes
from tests.support.write_path import CORPUS, InMemoryWorker, at_once, ingestion, source

WRITERS = 4
WRITES = 10


@pytest.fixture
def pooled(processes: Processes, postgres_server: PostgresServer) -> Iterator[Database]:
    """An empty database behind a pooler with two sessions for everybody."""
    start_pgbouncer(processes, postgres_server, sessions=2)
    name = postgres_server.create_database()
    with closing(Database(create_database_engine(pooled_url(postgres_server, name), pool_size=8))) as database:
        yield database
    processes.kill_everything()
    postgres_server.drop_database(name)


def test_everything_works_behind_a_pooler_in_transaction_mode(pooled: Database) -> None:
    upgrade(pooled)

    def write(writer: int) -> int:
        puts = (ingestion(pooled).put(CORPUS, [source(f"d{writer}", f"text {n}")]) for n in range(WRITES))
        return sum(each.accepted for each in puts)

    assert at_once(*[lambda writer=each: write(writer) for each in range(WRITERS)]) == [WRITES] * WRITERS
    assert lead(pooled, "dispatcher", holder="me", lease_s=5)
    assert set(InMemoryWorker(pooled).run_all()) == {"succeeded"}
    with pooled.read() as connection:
        states = connection.execute(text("SELECT state, count(*) FROM documents GROUP BY state")).all()
        prepared = connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one()
    assert [tuple(row) for row in states] == [("served", WRITERS)]
    assert prepared == 0
    drop_corpus(pooled, CORPUS)


def test_doctor_says_that_a_pooler_is_in_between(pooled: Database, postgres_database: Database) -> None:
    subjects = [finding.subject for finding in check(pooled, Settings())]
    assert "pooler" in subjects
    assert "pooler" not in [finding.subject for finding in check(postgres_database, Settings())]


def test_statements_are_prepared_where_no_pooler_is_in_between(postgres_database: Database) -> None:
    with postgres_database.read() as connection:
        for _ in range(10):
            connection.execute(text("SELECT 1"))
        assert connection.execute(text("SELECT count(*) FROM pg_prepared_statements")).scalar_one() > 0
