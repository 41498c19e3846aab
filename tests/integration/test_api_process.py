"""`python -m api` as a real process: when it starts, when it refuses to, and what only a real server shows."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest

from pipeline.framing import packaged_frame
from tests.support.lonely_api import LonelyApi
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK, NO_TLS
from tests.support.processes import Processes


@pytest.fixture
def api(processes: Processes, tmp_path: Path) -> LonelyApi:
    return LonelyApi(processes, tmp_path)


def test_a_database_that_is_not_upgraded_ends_it_with_one_sentence(api: LonelyApi) -> None:
    process = api.launch()
    line = api.refusal(process)
    assert "forefill db upgrade" in line
    assert "Traceback" not in process.log()


def test_an_address_that_others_can_reach_is_refused(api: LonelyApi) -> None:
    api.upgrade()
    process = api.launch(FOREFILL_API_HOST="0.0.0.0")
    line = api.refusal(process)
    assert "loopback" in line


def test_a_malformed_setting_is_named(api: LonelyApi) -> None:
    process = api.launch(FOREFILL_API_PORT="many")
    assert process.wait(timeout_s=30) == 1
    assert "FOREFILL_API_PORT" in process.log()


def test_sigterm_ends_it_cleanly_with_connections_open(api: LonelyApi) -> None:
    process = api.start()
    with httpx.Client(base_url=api.url) as client:
        assert client.get("/healthz").status_code == 200
        began = time.monotonic()
        assert process.terminate(timeout_s=10) == 0
        assert time.monotonic() - began < 8
    assert "api.stopped" in process.log()
    assert "Traceback" not in process.log()


def test_what_is_missing_is_named_and_writes_are_accepted_all_the_same(api: LonelyApi) -> None:
    api.start()
    with httpx.Client(base_url=api.url, timeout=10.0) as client:
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.headers["content-type"] == "application/problem+json"
        assert ready.json()["checks"]["database"]["ok"] is True
        assert "qdrant" in ready.json()["detail"]
        written = client.put("/v1/corpora/c/documents", json={"documents": [{"id": "a", "text": "x"}]})
        assert written.status_code == 202
        asked = client.post("/v1/retrieve", json={"corpus": "c", "query": "x"})
        assert asked.status_code == 503
        assert asked.json()["service"] == "qdrant"
        assert int(asked.headers["Retry-After"]) >= 1


def test_targets_are_taken_as_they_are_sent(api: LonelyApi) -> None:
    api.start()
    ids = ["../../x", "a/b", "a//b", "ü", "a%2Fb", "./."]
    with httpx.Client(base_url=api.url) as client:
        body = {"documents": [{"id": each, "text": "x"} for each in ids]}
        assert client.put("/v1/corpora/c/documents", json=body).status_code == 202
    documents = "/v1/corpora/c/documents"
    targets = ["../../x", "a/b", "a%2fb", "a//b", "%C3%BC", "a%252Fb", "./.", "..%2F..%2Fx"]
    for target in targets:
        status, answer = api.raw(f"{documents}/{target}")
        assert (target, status) == (target, 200), answer
    assert api.raw(f"{documents}/%2e%2e/x")[0] == 404
    assert api.raw("/v1/corpora/c/../c")[0] == 404
    assert api.raw("/healthz", host="attacker.example")[0] == 403


def test_a_body_without_length_is_refused_once_it_is_too_large(api: LonelyApi) -> None:
    api.start()
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 100_000
            yield b" " * 100_000

    with httpx.Client(base_url=api.url, timeout=20.0) as client:
        headers = {"Content-Type": "application/json"}
        chunked = client.put("/v1/corpora/c/documents", content=endless(), headers=headers)
        assert chunked.status_code == 413
        stated = client.put("/v1/corpora/c/documents", content=b" " * 5_000_000, headers=headers)
        assert stated.status_code == 413
        assert stated.headers["connection"] == "close"
        assert client.get("/healthz").status_code == 200


def test_a_client_that_sends_slowly_holds_nobody_up(api: LonelyApi) -> None:
    process = api.start()
    with socket.create_connection((LOOPBACK, api.port)) as slow:
        slow.sendall(
            b"PUT /v1/corpora/c/documents HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        answers: list[int] = []
        thread = threading.Thread(target=lambda: answers.append(httpx.get(f"{api.url}/v1/corpora").status_code))
        thread.start()
        thread.join(timeout=10)
        assert answers == [200]
        assert process.terminate(timeout_s=15) == 0


def test_a_validation_ends_when_its_caller_leaves_and_the_next_one_begins(api: LonelyApi) -> None:
    process = api.start(FOREFILL_SPEC_VALIDATION_CONTEXTS="10000000")  # hours
    frame = orjson.loads(packaged_frame("plain").canonical_json()) | {"name": "own"}
    body = orjson.dumps({"source": "tiktoken", "encoding": "o200k_base", "frame": frame})
    other = {"source": "hf", "tokenizer_json": "{}", "frame": "plain"}

    def next_one() -> int:
        return httpx.post(f"{api.url}/v1/specs", json=other, timeout=30.0, verify=NO_TLS).status_code

    with socket.create_connection((LOOPBACK, api.port)) as leaving:
        leaving.sendall(
            b"POST /v1/specs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        eventually(lambda: next_one() == 503, timeout_s=30)
        eventually(lambda: len(process.children()) == 1, timeout_s=30)
    eventually(lambda: next_one() == 422, timeout_s=30)
    eventually(lambda: process.children() == [])
    assert "Traceback" not in process.log()
    assert httpx.get(f"{api.url}/v1/specs", verify=NO_TLS).json()["specs"] == []
