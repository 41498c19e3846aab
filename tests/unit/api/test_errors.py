import orjson
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response
from starlette.testclient import TestClient

from api.errors import ErrorBoundary, install_error_handlers, problem, problem_of
from pipeline.errors import (
    ConfigurationError,
    Conflict,
    CorruptEntry,
    ExactnessError,
    Forbidden,
    ForefillError,
    InvalidInput,
    NotFound,
    StaleFence,
    TooLarge,
    Unavailable,
)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (NotFound("x"), 404),
        (Forbidden("x"), 403),
        (Conflict("x"), 409),
        (TooLarge("x"), 413),
        (InvalidInput("x"), 422),
        (Unavailable("x", service="qdrant"), 503),
        (ConfigurationError("x"), 500),
        (ExactnessError("x"), 500),
        (StaleFence("x"), 500),
        (CorruptEntry("x"), 500),
        (ForefillError("x"), 500),
    ],
)
def test_every_error_of_the_tree_has_its_status(error: ForefillError, status: int) -> None:
    answer = problem_of(error)
    assert answer.status_code == status
    assert answer.media_type == "application/problem+json"
    document = orjson.loads(answer.body)
    assert document["status"] == status
    assert set(document) >= {"type", "title", "status", "detail"}


def test_an_error_of_the_deployment_keeps_its_details() -> None:
    assert b"secret" not in problem_of(ConfigurationError("secret")).body


@pytest.mark.parametrize(("retry_after_s", "header"), [(0.0, "1"), (1.0, "1"), (1.2, "2"), (60.0, "60")])
def test_unavailable_says_when_to_come_again(retry_after_s: float, header: str) -> None:
    answer = problem_of(Unavailable("x", service="database", retry_after_s=retry_after_s))
    assert answer.headers["Retry-After"] == header
    assert orjson.loads(answer.body)["service"] == "database"


def test_invalid_input_names_its_item() -> None:
    assert orjson.loads(problem_of(InvalidInput("x", item="doc-1")).body)["item"] == "doc-1"


def test_a_detail_that_is_no_text_is_escaped() -> None:
    answer = problem_of(InvalidInput("bad \ud800", item="\udfff"))
    assert orjson.loads(answer.body)["detail"] == "bad \\ud800"
    assert orjson.loads(answer.body)["item"] == "\\udfff"


def test_a_detail_is_not_endless() -> None:
    assert len(problem(422, "x" * 100_000).body) < 1000


def client_of(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


def test_an_unexpected_error_is_a_500_without_details() -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/")
    async def fail() -> Response:
        raise RuntimeError("secret")

    app.add_middleware(ErrorBoundary)
    answer = client_of(app).get("/")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text


def test_what_the_framework_refuses_is_a_problem_too() -> None:
    app = FastAPI()
    install_error_handlers(app)

    @app.get("/here")
    async def here(limit: int = 1) -> Response:
        return PlainTextResponse(str(limit))

    client = client_of(app)
    assert client.get("/there").json()["status"] == 404
    refused = client.post("/here")
    assert refused.json()["status"] == 405
    assert refused.headers["allow"] == "GET, HEAD"
    assert client.get("/here?limit=x").json()["detail"].startswith("limit: ")
