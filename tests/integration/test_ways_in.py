"""One table of odd JSON through both ways in, HTTP and `forefill ingest`: they take the same and say the same."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from pipeline.settings import Settings
from tests.support.api_world import BASE_URL
from tests.support.commands import Commands

JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a file, which is also one document of a request."""

    claim: str
    json: bytes
    says: str | None
    """What is said of it; None where it is taken; "" where only the place differs."""


def value(claim: str, metadata: bytes, says: str | None) -> Line:
    json = b'{"id":"odd","text":"t","metadata":{"n":%b}}' % metadata
    return Line(claim, json, None if says is None else f"document 'odd'{says}")


LINES = [
    value("the largest integer", b"9223372036854775807", None),
    value("a float that is an integer", b"2023.0", None),
    value("a number too small for a float", b"1e-400", None),
    value("text that looks like a large number", b'"1e999"', None),
    value("32 levels", b"[" * 31 + b"]" * 31, None),
    value("an integer over 64 bits", b"18446744073709551616", ": metadata holds an integer of more than 64 bits"),
    value("an unsigned integer", b"9223372036854775808", ": metadata holds an integer of more than 64 bits"),
    value("an integer of 5,000 digits", b"9" * 5000, " holds an integer of thousands of digits"),
    value("NaN", b"NaN", " is not JSON: it holds NaN"),
    value("Infinity", b"-Infinity", " is not JSON: it holds -Infinity"),
    value("a number too large for a float", b"1e400", " holds a number that is not finite"),
    value("33 levels", b"[" * 32 + b"]" * 32, ": metadata is nested more than 32 deep"),
    value("300 levels", b"[" * 300 + b"]" * 300, " is nested more than 200 deep"),
    value("a key twice", b'{"k":1,"k":2}', " has the key 'k' twice"),
    value("a lone surrogate", b'"\\ud800"', ": metadata holds a lone surrogate at character 0"),
    value("a NUL", b'"\\u0000"', ": metadata holds a NUL character"),
    value("bytes that are not UTF-8", b'"\xff"', " holds bytes that are not UTF-8"),
    value("a surrogate as bytes", b'"\xed\xa0\x80"', " holds bytes that are not UTF-8"),
    Line("a text twice", b'{"id":"odd","text":"a","text":"b"}', "document 'odd' has the key 'text' twice"),
    Line(
        "a lone surrogate in an id",
        b'{"id":"\\udfff","text":""}',
        "document id '\\udfff' holds a lone surrogate at character 0",
    ),
    Line("an id that is a number", b'{"id":7,"text":""}', "document id (int) must be a string that is not empty"),
    Line("an id that is null", b'{"id":null,"text":""}', "document id (NoneType) must be a string that is not empty"),
    Line("a text that is a number", b'{"id":"odd","text":7}', "document 'odd': text must be a string"),
    Line("no text", b'{"id":"odd"}', "document 'odd' has no field text"),
    Line("no id", b'{"text":""}', ""),
    Line("no object", b"[]", ""),
    Line("no JSON", b"{'id': 1}", ""),
    Line("a byte order mark", b'\xef\xbb\xbf{"id":"odd","text":""}', ""),
    Line("levels without end", b"[" * 100_000, ""),
]


@pytest.fixture
def api(commands: Commands) -> Iterator[TestClient]:
    """The API on the commands' database; Qdrant is not there, and accepting needs none."""
    environment = commands.environment
    settings = Settings(
        database_url=environment["FOREFILL_DATABASE_URL"],
        broker_url=environment["FOREFILL_BROKER_URL"],
        cache_url=environment["FOREFILL_CACHE_URL"],
        qdrant_url=environment["FOREFILL_QDRANT_URL"],
    )
    with TestClient(create_app(settings), base_url=BASE_URL, raise_server_exceptions=False) as client:
        yield client


def test_http_and_the_command_line_take_the_same_documents_and_say_the_same_of_the_others(
    commands: Commands, api: TestClient, tmp_path: Path
) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_bytes(b"\n".join([b"", *(line.json for line in LINES)]))
    done = commands.run("ingest", str(path), "--corpus", "docs")
    reports = dict(re.findall(rf"^{re.escape(str(path))}:(\d+): (.*)$", done.stderr, re.MULTILINE))
    assert done.returncode == 1
    for number, line in enumerate(LINES, start=2):
        answer = api.put(
            "/v1/corpora/docs/documents", content=b'{"documents":[%b]}' % line.json, headers={"Content-Type": JSON}
        )
        said = reports.get(str(number))
        if line.says is None:
            assert (answer.status_code, said) == (202, None), line.claim
            continue
        assert answer.status_code == 422, line.claim
        assert said is not None, line.claim
        if line.says:
            assert (answer.json()["detail"], said) == (line.says, line.says), line.claim
