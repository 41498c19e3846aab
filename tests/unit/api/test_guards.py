from collections.abc import Iterable
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.guards import BodyLimit, JsonOnly, LoopbackOnly, is_loopback

Headers = Iterable[tuple[str, str]]
LOCAL = ("host", "localhost:8080")


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the length of the body it read."""
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


async def call(
    app: ASGIApp, *, method: str = "PUT", headers: Headers = (LOCAL,), body: Iterable[bytes] = (b"",)
) -> tuple[int, bytes, dict[str, str]]:
    """Send one request, its body in the given chunks, and return status, body and headers of the answer."""
    chunks = list(body)
    sent: list[Message] = []

    async def receive() -> Message:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": "/",
        "headers": [(name.encode(), value.encode()) for name, value in headers],
    }
    await app(scope, receive, send)
    start = sent[0]
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], b"".join(message.get("body", b"") for message in sent[1:]), answered


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:1", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]", "[::1]:8080"],
)
def test_loopback_names_are_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host",
    [
        *("", ":80", "example.com", "localhost.example.com", "127.0.0.1.nip.io", "128.0.0.1", "10.0.0.1", "0.0.0.0"),
        *("[::]", "[::1", "::1", "user@localhost", "localhost:80:80", "localhost:x", "localhost/", " localhost", "[1]"),
        *("0x7f.1", "2130706433", "localhost\n", "localhost:123456"),
    ],
)
def test_other_names_are_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("host", "evil.example")],
        [LOCAL, LOCAL],
        [LOCAL, ("origin", "https://evil.example")],
        [LOCAL, ("origin", "null")],
        [LOCAL, ("origin", "file://localhost")],
        [LOCAL, ("origin", "http://[")],
        [LOCAL, ("origin", "http://localhost"), ("origin", "http://evil.example")],
    ],
)
async def test_foreign_hosts_and_origins_are_refused(headers: Headers) -> None:
    status, body, _ = await call(LoopbackOnly(echo), headers=headers)
    assert status == 403
    assert orjson.loads(body)["title"] == "Forbidden"


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [[LOCAL], [LOCAL, ("origin", "http://127.0.0.1:3000")]])
async def test_requests_of_this_machine_pass(headers: Headers) -> None:
    assert (await call(LoopbackOnly(echo), headers=headers))[0] == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("content-type", "application/json")], 200),
        ([("content-type", "Application/JSON ; charset=UTF-8")], 200),
        ([("content-type", 'application/json; charset="utf-8"; x=y')], 200),
        ([], 200),
        ([("content-length", "0")], 200),
        ([("content-length", "2")], 415),
        ([("transfer-encoding", "chunked")], 415),
        ([("content-type", "application/json; charset=latin-1")], 415),
        ([("content-type", "application/problem+json")], 415),
        ([("content-type", "text/plain")], 415),
        ([("content-type", "")], 415),
    ],
)
async def test_only_json_bodies_pass(headers: Headers, status: int) -> None:
    assert (await call(JsonOnly(echo), headers=headers))[0] == status


@pytest.mark.anyio
async def test_reading_needs_no_media_type() -> None:
    assert (await call(JsonOnly(echo), method="GET", headers=[("content-type", "text/html")]))[0] == 200


@pytest.mark.anyio
@pytest.mark.parametrize("chunks", [[b"12345"], [b"123", b"45"], [b"", b"12345", b""]])
async def test_a_body_of_exactly_the_limit_passes(chunks: list[bytes]) -> None:
    assert (await call(BodyLimit(echo, max_bytes=5), body=chunks))[:2] == (200, b"5")


@pytest.mark.anyio
@pytest.mark.parametrize("chunks", [[b"123456"], [b"123", b"456"], [b"12345", b"6", b"and what follows"]])
async def test_a_body_over_the_limit_is_refused_without_a_length(chunks: list[bytes]) -> None:
    status, body, headers = await call(BodyLimit(echo, max_bytes=5), body=chunks)
    assert status == 413
    assert "5 bytes" in orjson.loads(body)["detail"]
    assert headers["connection"] == "close"


@pytest.mark.anyio
@pytest.mark.parametrize("length", ["6", "99999999999999999999999999"])
async def test_a_stated_length_over_the_limit_never_reaches_the_application(length: str) -> None:
    async def unreachable(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("called")

    headers = [LOCAL, ("content-length", length)]
    assert (await call(BodyLimit(unreachable, max_bytes=5), headers=headers, body=[b"123456"]))[0] == 413


@pytest.mark.anyio
async def test_an_application_that_makes_its_own_answer_of_it_is_overruled() -> None:
    async def forgiving(_scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except Exception:  # noqa: BLE001  # what frameworks do around parsing
            await send({"type": "http.response.start", "status": 400, "headers": []})
            await send({"type": "http.response.body", "body": b"parse error"})

    assert (await call(BodyLimit(forgiving, max_bytes=5), body=[b"123456"]))[0] == 413


@pytest.mark.anyio
async def test_a_client_that_waits_for_permission_is_not_told_to_send() -> None:
    headers = [LOCAL, ("content-length", "6"), ("expect", "100-continue")]
    status, _, _ = await call(
        BodyLimit(echo, max_bytes=5), headers=headers, body=[]
    )  # nothing to read: asking would fail
    assert status == 413
