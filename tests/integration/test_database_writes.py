"""A database that refuses writes: 503 with `Retry-After`, and `/readyz`, `status` and `doctor` say so."""

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api.app import create_app
from pipeline.database import Database
from pipeline.errors import Unavailable
from pipeline.services.diagnosis.database import check_writes
from pipeline.services.diagnosis.database_writes import DatabaseWriteProbe
from pipeline.settings import Settings
from tests.support.api_world import BASE_URL
from tests.support.ports import LOOPBACK
from tests.support.postgres import PostgresServer


@pytest.fixture
def read_only(postgres_database: Database) -> Database:
    """A database whose new sessions are read-only, as a replica's are."""
    name = postgres_database.engine.url.database
    with postgres_database.write() as connection:
        connection.execute(text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on'))
    postgres_database.engine.dispose()
    return postgres_database


def test_a_read_only_server_is_503_for_writers_and_named_by_readyz(read_only: Database) -> None:
    nowhere = f"{LOOPBACK}:1"
    url = read_only.engine.url.render_as_string(hide_password=False)
    settings = Settings(
        database_url=url,
        broker_url=f"redis://{nowhere}",
        cache_url=f"redis://{nowhere}",
        qdrant_url=f"http://{nowhere}",
    )
    with TestClient(create_app(settings), base_url=BASE_URL, raise_server_exceptions=False) as client:
        for _ in range(3):
            answer = client.put("/v1/corpora/docs/documents", json={"documents": [{"id": "a", "text": "b"}]})
            assert (answer.status_code, answer.json()["service"]) == (503, "database"), answer.text
            assert int(answer.headers["Retry-After"]) >= 1
            assert "transaction" not in answer.json()["detail"], "the server's own words are for operators"
        database = client.get("/readyz").json()["checks"]["database"]
        assert database["ok"] is False
        assert "refuses writes" in database["reason"]
        assert "read-only transaction" in database["reason"]


def test_doctor_names_a_database_that_refuses_writes(read_only: Database, sqlite_database: Database) -> None:
    finding = check_writes(read_only)
    assert (finding.level.value, finding.subject) == ("fail", "database writes")
    assert "read-only transaction" in finding.message
    assert check_writes(sqlite_database).level.value == "ok"


def test_an_answer_about_writes_holds_for_some_seconds_and_is_asked_anew_afterwards(
    postgres_server: PostgresServer, read_only: Database
) -> None:
    now_s = 0.0
    probe = DatabaseWriteProbe(read_only, clock=lambda: now_s)
    assert probe.problem() is not None
    postgres_server.execute(f'ALTER DATABASE "{read_only.engine.url.database}" RESET ALL')
    read_only.engine.dispose()
    now_s = 4.0
    with pytest.raises(Unavailable, match="refuses writes"):
        probe.require_writes()
    now_s = 6.0
    assert probe.problem() is None
