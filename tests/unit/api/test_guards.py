import orjson
import pytest
from starlette.types import Receive, Scope, Send

from api.guards import BodyLimit, JsonOnly, _Guard
from tests.unit.api.asgi import LOCAL, Headers, call, echo


def test_a_guard_without_a_rule_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        _Guard(echo)  # type: ignore[abstract]  # what is tested


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
