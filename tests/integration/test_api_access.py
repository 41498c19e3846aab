"""API keys against the API as a process: who is let in to what, and how soon a change counts."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipeline.documents.access import IssuedKey, issue_key
from tests.support.lonely_api import LonelyApi
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK
from tests.support.processes import Process, Processes

SOON_S = 5.0
"""Two seconds and a refresh, on a machine that others use as well."""
QUESTION = {"corpus": "a", "query": "x"}
DOCUMENT = {"documents": [{"id": "d", "text": "some text"}]}
ABSENT_RUN = "00000000-0000-7000-8000-000000000000"
RUN_VERBS = ("cancel", "pause", "resume", "retry")


@pytest.fixture
def api(processes: Processes, tmp_path: Path) -> LonelyApi:
    return LonelyApi(processes, tmp_path)


def make_key(api: LonelyApi, *scopes: str, corpora: tuple[str, ...] | None = None) -> IssuedKey:
    with api.database() as database, database.write() as connection:
        return issue_key(connection, "test", scopes=scopes or ("query", "ingest", "admin"), corpora=corpora)


@contextmanager
def client_of(api: LonelyApi, key: IssuedKey | str | None = None) -> Iterator[httpx.Client]:
    text = key.text if isinstance(key, IssuedKey) else key
    headers = {} if text is None else {"Authorization": f"Bearer {text}"}
    with httpx.Client(base_url=api.url, headers=headers, timeout=10.0) as client:
        yield client


def status_of(api: LonelyApi, key: IssuedKey | str | None, path: str = "/v1/corpora") -> int:
    with client_of(api, key) as client:
        return client.get(path).status_code


def revoke(api: LonelyApi, key: IssuedKey) -> None:
    done = api.forefill("keys", "revoke", key.key.id)
    assert done.returncode == 0, done.stderr


def test_a_key_that_is_made_while_the_api_runs_without_any_closes_it_soon(api: LonelyApi) -> None:
    process = api.start()
    assert status_of(api, None) == 200
    key = make_key(api)
    began = time.monotonic()
    eventually(lambda: status_of(api, None) == 401, timeout_s=SOON_S, describe="a closed API")
    assert time.monotonic() - began < SOON_S
    assert status_of(api, key) == 200
    assert key.text not in process.log()


def test_a_revoked_key_is_refused_soon_and_the_last_one_opens_nothing(api: LonelyApi) -> None:
    api.upgrade()
    kept, ended = make_key(api), make_key(api)
    api.start()
    assert status_of(api, ended) == 200
    revoke(api, ended)
    eventually(lambda: status_of(api, ended) == 401, timeout_s=SOON_S, describe="the revocation")
    assert status_of(api, kept) == 200
    revoke(api, kept)
    eventually(lambda: status_of(api, kept) == 401, timeout_s=SOON_S, describe="the revocation")
    assert status_of(api, None) == 401
    for key in (kept, ended):
        done = api.forefill("keys", "forget", key.key.id, "--yes")
        assert done.returncode == 0, done.stderr
    eventually(lambda: status_of(api, None) == 200, timeout_s=SOON_S, describe="an API without keys")


def test_beyond_loopback_it_starts_with_a_key_only_and_the_last_ones_end_closes_it(api: LonelyApi) -> None:
    api.upgrade()
    refused = api.forefill("api", "--host", "0.0.0.0")
    assert refused.returncode == 1
    _version, line = refused.stderr.splitlines()
    assert "0.0.0.0" in line
    assert "forefill keys add" in line

    key = make_key(api)
    api.start(FOREFILL_API_HOST="0.0.0.0")
    assert status_of(api, key) == 200
    assert status_of(api, None) == 401
    assert api.raw("/healthz", host="10.0.0.7:8080")[0] == 200
    revoke(api, key)
    eventually(lambda: status_of(api, key) == 401, timeout_s=SOON_S, describe="the revocation")
    with api.database() as database, database.write() as connection:
        connection.exec_driver_sql("DELETE FROM api_keys")
    again = api.forefill("api", "--host", "0.0.0.0")
    assert again.returncode == 1
    deadline = time.monotonic() + SOON_S
    seen = set()
    while time.monotonic() < deadline:
        seen.add(status_of(api, None))
    assert seen == {401}


def test_a_database_with_revoked_keys_only_is_no_reason_to_listen_beyond_loopback(api: LonelyApi) -> None:
    api.upgrade()
    revoke(api, make_key(api))
    process = api.launch(FOREFILL_API_HOST="0.0.0.0")
    assert process.wait(timeout_s=30) == 1
    assert "forefill keys add" in process.log()


def test_scopes_open_what_they_say_and_nothing_else(api: LonelyApi) -> None:
    api.upgrade()
    keys = {scope: make_key(api, scope) for scope in ("query", "ingest", "admin")}
    api.start()
    requests: list[tuple[str, str, Any, set[str]]] = [
        ("PUT", "/v1/corpora/a/documents", DOCUMENT, {"ingest"}),
        ("GET", "/v1/corpora/a/documents", None, {"query"}),
        ("GET", "/v1/corpora/a/documents/d", None, {"query"}),
        ("POST", "/v1/corpora/a/documents/delete", {"ids": ["d"]}, {"ingest"}),
        ("DELETE", "/v1/corpora/a/documents", {"ids": ["d"]}, {"ingest"}),
        ("PUT", "/v1/corpora/a", {}, {"admin"}),
        ("GET", "/v1/corpora", None, {"query", "ingest", "admin"}),
        ("GET", "/v1/corpora/a", None, {"query", "ingest", "admin"}),
        ("POST", "/v1/retrieve", QUESTION, {"query"}),
        ("POST", "/v1/retrieve/batch", {"queries": [QUESTION]}, {"query"}),
        ("GET", "/v1/runs", None, {"ingest", "admin"}),
        ("GET", f"/v1/runs/{ABSENT_RUN}", None, {"ingest", "admin"}),
        ("GET", f"/v1/runs/{ABSENT_RUN}/errors", None, {"ingest", "admin"}),
        ("POST", "/v1/runs", {"kind": "retokenize", "corpus": "a"}, {"admin"}),
        ("POST", f"/v1/runs/{ABSENT_RUN}/cancel", None, {"admin"}),
        ("POST", f"/v1/runs/{ABSENT_RUN}/pause", None, {"admin"}),
        ("POST", f"/v1/runs/{ABSENT_RUN}/resume", None, {"admin"}),
        ("POST", f"/v1/runs/{ABSENT_RUN}/retry", None, {"ingest", "admin"}),
        ("GET", "/v1/specs", None, {"query", "ingest", "admin"}),
        ("GET", "/v1/specs/o200k_base/plain", None, {"query", "ingest", "admin"}),
        ("POST", "/v1/specs", {"source": "tiktoken", "encoding": "absent", "frame": "plain"}, {"admin"}),
        ("GET", "/v1/stats", None, {"query", "ingest", "admin"}),
        ("POST", "/v1/stats/reset", None, {"admin"}),
        ("DELETE", "/v1/cache?refill=false", None, {"admin"}),
        ("GET", "/metrics", None, {"query", "admin"}),
        ("GET", "/", None, {"query", "admin"}),
        ("DELETE", "/v1/corpora/a", None, {"admin"}),
    ]
    for method, path, body, granted in requests:
        for scope, key in sorted(keys.items(), key=lambda item: item[0] in granted):  # those who may come last
            with client_of(api, key) as client:
                answer = client.request(method, path, json=body)
            refused = answer.status_code == 403
            assert refused is (scope not in granted), f"{scope}: {method} {path}: {answer.text}"
            assert answer.status_code != 500, f"{scope}: {method} {path}: {answer.text}"
        assert status_of(api, None, path) == 401


def test_readiness_is_for_everybody_and_its_reasons_for_callers_with_a_key(api: LonelyApi) -> None:
    api.upgrade()
    key = make_key(api, "ingest")
    api.start()
    for presented, fields in ((None, {"ok"}), ("wrong", {"ok"}), (key, {"ok", "reason"})):
        with client_of(api, presented) as client:
            answer = client.get("/readyz")
        assert answer.status_code == 503
        assert set(answer.json()["checks"]["cache"]) == fields
        assert ("did not answer" in answer.text) is (presented is key)


def test_a_key_for_some_corpora_learns_nothing_of_others(api: LonelyApi) -> None:
    api.upgrade()
    every = make_key(api)
    mine = make_key(api, corpora=("mine", "never-made"))
    api.start()
    with client_of(api, every) as client:
        runs = {
            name: client.put(f"/v1/corpora/{name}/documents", json=DOCUMENT).json()["run_id"]
            for name in ("mine", "foreign")
        }
        assert [each["name"] for each in client.get("/v1/corpora").json()["corpora"]] == ["foreign", "mine"]
        assert set(client.get("/v1/stats").json()["coverage"]) == {"foreign", "mine"}
        assert 'corpus="foreign"' in client.get("/metrics").text
    with client_of(api, mine) as client:
        assert [each["name"] for each in client.get("/v1/corpora").json()["corpora"]] == ["mine"]
        assert {each["corpus"] for each in client.get("/v1/runs").json()["runs"]} == {"mine"}
        assert set(client.get("/v1/stats").json()["coverage"]) == {"mine"}
        metrics, page = client.get("/metrics").text, client.get("/").text
        assert 'corpus="mine"' in metrics
        for told in (metrics, page, client.get("/v1/specs").text):
            assert "foreign" not in told
        assert runs["foreign"] not in page
        assert client.get(f"/v1/runs/{runs['mine']}").status_code == 200
        for answer in (client.post("/v1/stats/reset"), client.request("DELETE", "/v1/cache?refill=false")):
            assert answer.status_code == 403


def test_a_foreign_corpus_or_run_answers_like_one_that_never_was(api: LonelyApi) -> None:
    api.upgrade()
    every = make_key(api)
    mine = make_key(api, corpora=("mine",))
    api.start()
    with client_of(api, every) as client:
        run_id = client.put("/v1/corpora/foreign/documents", json=DOCUMENT).json()["run_id"]
    requests: list[tuple[str, str, Any]] = [
        ("GET", "/v1/corpora/{}", None),
        ("PUT", "/v1/corpora/{}", {}),
        ("DELETE", "/v1/corpora/{}", None),
        ("GET", "/v1/corpora/{}/documents", None),
        ("GET", "/v1/corpora/{}/documents/d", None),
        ("PUT", "/v1/corpora/{}/documents", DOCUMENT),
        ("DELETE", "/v1/corpora/{}/documents", {"ids": ["d"]}),
        ("POST", "/v1/corpora/{}/documents/delete", {"ids": ["d"]}),
        ("GET", "/v1/runs?corpus={}", None),
        ("DELETE", "/v1/cache?refill=false&corpus={}", None),
        ("POST", "/v1/runs", {"kind": "retokenize", "corpus": "{}"}),
        ("POST", "/v1/retrieve", {"corpus": "{}", "query": "x"}),
        ("POST", "/v1/retrieve/batch", {"queries": [{"corpus": "mine", "query": "x"}, {"corpus": "{}", "query": "x"}]}),
    ]
    with client_of(api, mine) as client:
        for method, path, body in requests:
            answers = []
            for name in ("foreign", "absent"):
                filled = json.loads(json.dumps(body).replace("{}", name)) if body else body
                answer = client.request(method, path.format(name), json=filled)
                answers.append((answer.status_code, answer.text.replace(name, "NAME")))
            assert answers[0] == answers[1], f"{method} {path}"
            assert answers[0][0] == 403, f"{method} {path}: {answers[0]}"
        verbs = (("GET", ""), ("GET", "/errors"), *(("POST", f"/{verb}") for verb in RUN_VERBS))
        for method, suffix in verbs:
            found = client.request(method, f"/v1/runs/{run_id}{suffix}")
            absent = client.request(method, f"/v1/runs/{ABSENT_RUN}{suffix}")
            assert found.status_code == absent.status_code == 404
            assert found.text.replace(run_id, "RUN") == absent.text.replace(ABSENT_RUN, "RUN")
    with client_of(api, every) as client:
        assert client.get("/v1/corpora/foreign/documents/d").status_code == 200
        assert client.get("/v1/corpora/absent").status_code == 404


def test_a_corpus_cannot_be_reached_by_writing_its_address_in_another_way(api: LonelyApi) -> None:
    api.upgrade()
    every, mine = make_key(api), make_key(api, corpora=("mine",))
    api.start()
    with client_of(api, every) as client:
        client.put("/v1/corpora/foreign/documents", json=DOCUMENT)
        client.put("/v1/corpora/mine/documents", json=DOCUMENT)
    bearer = {"Authorization": f"Bearer {mine.text}"}
    for target in (
        *("/v1/corpora/%66oreign", "/v1/corpora/foreig%6E/documents", "/v1/corpora/mine/../foreign"),
        *("/v1/corpora/mine%2F..%2Fforeign", "/v1/corpora/mine/documents/../../foreign", "//v1/corpora/foreign"),
        *("/v1/corpora/foreign/", "/v1/corpora/foreign/documents/d", "/healthz/../v1/corpora/foreign"),
        *("/static-offline-docs/../v1/corpora", "/static-offline-docs/..%2f..%2fv1/corpora", "/docs/../v1/corpora"),
    ):
        status, answer = api.raw(target, headers=bearer)
        assert status in (403, 404), (target, answer)
        assert b"served_generation" not in answer
        assert api.raw(target)[0] in (401, 404), target


@pytest.mark.parametrize("length", [100_000, 1_000_000])
def test_a_long_header_is_refused_and_nothing_else_suffers(api: LonelyApi, length: int) -> None:
    api.upgrade()
    key = make_key(api)
    process = api.start()
    for start in (f"Bearer {key.text}", "Bearer ", "Bearer" + " " * 1000):
        head = f"GET /v1/corpora HTTP/1.1\r\nHost: localhost\r\nAuthorization: {start}{'A' * length}\r\n\r\n"
        status = first_line(api, head.encode()).split()[1]
        assert status in (b"400", b"401", b"431"), status
    assert status_of(api, key) == 200
    assert "Traceback" not in process.log()


def test_odd_credentials_are_refused_over_the_wire_and_none_is_logged(api: LonelyApi) -> None:
    api.upgrade()
    key = make_key(api)
    process = api.start(FOREFILL_LOG_LEVEL="DEBUG")
    secret = key.text.encode().split(b"_", 2)[2]
    good = b"Authorization: Bearer " + key.text.encode()
    lines = [
        *(
            b"Authorization: Bearer \xc3\xbc\xff\xfe",
            b"Authorization: bearer " + secret,
            b"Authorization:",
            b"X-Key: 1",
        ),
        *(good + b"\r\n" + good, good + b"\r\nAuthorization: Basic eDp5", b"Authorization: Basic eDp5\r\n" + good),
        *(good[:-1], good + b"A", good + b"\x00", b"Proxy-" + good, b"Authorization: Bearer " + secret[::-1]),
        *(b"Cookie: Authorization=Bearer " + key.text.encode(), good + b", Bearer x"),
    ]
    for line in lines:
        answered = first_line(api, b"GET /v1/corpora HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n")
        assert answered.split()[1] in (b"400", b"401"), (line, answered)
    for scheme in (b"bearer ", b"BEARER "):
        head = b"GET /v1/corpora HTTP/1.1\r\nHost: localhost\r\nauthorization: " + scheme + key.text.encode()
        assert first_line(api, head + b"\r\n\r\n").split()[1] == b"200"
    in_query = first_line(api, b"GET /v1/corpora?key=" + key.text.encode() + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert in_query.split()[1] == b"401"
    with client_of(api, key) as client:
        assert client.post("/v1/retrieve", json={"corpus": "absent", "query": "x"}).status_code == 404
    assert process.terminate() == 0
    assert secret.decode() not in process.log() + process.output()


def test_pages_of_other_origins_ask_only_where_they_are_listed(api: LonelyApi) -> None:
    api.upgrade()
    key = make_key(api)
    api.start(
        FOREFILL_ALLOWED_HOSTS="forefill.example.com, other.example.com",
        FOREFILL_ALLOWED_ORIGINS="https://app.example.com",
    )
    bearer = {"Authorization": f"Bearer {key.text}"}
    for host, status in (("forefill.example.com", 200), ("localhost", 200), ("evil.example", 403)):
        assert api.raw("/v1/corpora", host=host, headers=bearer)[0] == status
    assert api.raw("/healthz", host="10.1.2.3")[0] == 200
    with client_of(api, key) as client:
        listed = client.get("/v1/corpora", headers={"Origin": "https://app.example.com"})
        assert listed.status_code == 200
        assert listed.headers["access-control-allow-origin"] == "https://app.example.com"
        foreign = client.get("/v1/corpora", headers={"Origin": "https://evil.example"})
        assert foreign.status_code == 403
        assert "access-control-allow-origin" not in foreign.headers
        asked = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
        preflight = client.options("/v1/corpora/a", headers={"Origin": "https://app.example.com", **asked})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "access-control-allow-credentials" not in preflight.headers
        foreign = client.options("/v1/corpora/a", headers={"Origin": "https://evil.example", **asked})
        assert "access-control-allow-origin" not in foreign.headers
        unauthorized = client.get(
            "/v1/corpora", headers={"Origin": "https://app.example.com", "Authorization": "Bearer wrong"}
        )
        assert unauthorized.status_code == 401
        assert unauthorized.headers["access-control-allow-origin"] == "https://app.example.com"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FOREFILL_ALLOWED_ORIGINS", "*"),
        ("FOREFILL_ALLOWED_ORIGINS", "app.example.com"),
        ("FOREFILL_ALLOWED_ORIGINS", "https://app.example.com/"),
        ("FOREFILL_ALLOWED_ORIGINS", "null"),
        ("FOREFILL_ALLOWED_HOSTS", "*"),
        ("FOREFILL_ALLOWED_HOSTS", "https://app.example.com"),
        ("FOREFILL_ALLOWED_HOSTS", "app.example.com:80"),
    ],
)
def test_a_list_of_names_that_are_none_is_refused_with_one_sentence(api: LonelyApi, name: str, value: str) -> None:
    api.upgrade()
    refused = api.forefill("api", **{name: value})
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert name in line


def test_idempotency_keys_belong_to_the_api_key_that_sent_them(api: LonelyApi) -> None:
    api.upgrade()
    first, second = make_key(api, "ingest"), make_key(api, "ingest")
    api.start()
    header = {"Idempotency-Key": "same"}
    other = {"documents": [{"id": "d", "text": "another text"}]}
    runs = []
    for key, body in ((first, DOCUMENT), (second, other), (first, DOCUMENT), (second, other)):
        with client_of(api, key) as client:
            answer = client.put("/v1/corpora/a/documents", json=body, headers=header)
        assert answer.status_code == 202
        runs.append(answer.json()["run_id"])
    assert runs[0] != runs[1]
    assert runs[:2] == runs[2:]
    with client_of(api, second) as client:
        assert client.put("/v1/corpora/a/documents", json=DOCUMENT, headers=header).status_code == 409


def start_without_sql(api: LonelyApi, copy: Path) -> Process:
    process = api.launch(FOREFILL_SNAPSHOT_PATH=str(copy))
    process.wait_until(api.is_alive, timeout_s=30.0)
    return process


def test_a_start_without_sql_lets_in_whom_the_copy_knows(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    api, copy = LonelyApi(processes, tmp_path / "sql"), tmp_path / "copy.json"
    api.upgrade()
    key, ended = make_key(api), make_key(api)
    before = api.start(FOREFILL_SNAPSHOT_PATH=str(copy))
    revoke(api, ended)
    eventually(lambda: ended.key.id not in copy.read_text(), timeout_s=SOON_S, describe="the copy")
    assert key.key.id in copy.read_text()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert before.terminate() == 0

    (tmp_path / "sql").rename(tmp_path / "away")
    without = start_without_sql(api, copy)
    assert status_of(api, None) == 401
    assert status_of(api, ended) == 401
    assert status_of(api, key) == 503  # let in; what it asks for is in SQL
    with client_of(api, key) as client:
        ready = client.get("/readyz").json()
    assert ready["checks"]["database"]["ok"] is False
    assert ready["detail"] == "not ready: qdrant"  # questions need no SQL
    with client_of(api, key) as client:
        assert client.post("/v1/retrieve", json={"corpus": "absent", "query": "x"}).status_code == 404
    (tmp_path / "away").rename(tmp_path / "sql")
    eventually(lambda: status_of(api, key) == 200, timeout_s=SOON_S, describe="SQL")
    assert without.terminate() == 0


def test_a_start_without_sql_and_without_a_copy_lets_nobody_in(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "sql").mkdir()
    api, copy = LonelyApi(processes, tmp_path / "sql"), tmp_path / "copy.json"
    api.upgrade()
    key = make_key(api)
    (tmp_path / "sql").rename(tmp_path / "away")
    start_without_sql(api, copy)
    for presented in (None, key):
        assert status_of(api, presented) == 503
    assert api.raw("/readyz")[0] == 503
    (tmp_path / "away").rename(tmp_path / "sql")
    eventually(lambda: status_of(api, key) == 200, timeout_s=SOON_S, describe="SQL")
    assert status_of(api, None) == 401


def first_line(api: LonelyApi, request: bytes) -> bytes:
    """Send bytes as they are and return the first line of the answer."""
    with socket.create_connection((LOOPBACK, api.port), timeout=10) as connection:
        connection.sendall(request)
        return connection.makefile("rb").readline()
