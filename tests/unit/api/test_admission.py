"""Who is let in, for every row and column of the table in `api.admission`."""

import hashlib
from collections.abc import Callable

import orjson
import pytest
from fastapi import Request
from starlette.types import Message, Receive, Scope, Send

from api.access import LOCAL as LOCAL_CALLER
from api.access import NOBODY, Caller, caller_of
from api.admission import Admission
from api.hosts import HostRules
from pipeline.documents.access import AccessScope, ApiKey
from pipeline.errors import Forbidden, Unavailable
from pipeline.services.configuration import Access
from tests.unit.api.asgi import LOCAL, Headers, call, echo, request_scope

KEY_ID, SECRET = "0123456789abcdef", "s3cr3t-" + "x" * 36
TEXT = f"ff_{KEY_ID}_{SECRET}"
KEY = ApiKey(
    KEY_ID,
    "a key",
    hashlib.sha256(SECRET.encode()).digest(),
    frozenset({AccessScope.QUERY}),
    frozenset({"a"}),
    created_at=1,
    revoked_at=None,
)
PUBLIC = ("host", "forefill.example.com")
OPEN_PATHS = ["/healthz", "/readyz", "/docs", "/openapi.json", "/static-offline-docs/swagger-ui.css"]


def no_keys() -> Access:
    return Access({}, required=False)


def one_key() -> Access:
    return Access({KEY.id: KEY}, required=True)


def all_revoked() -> Access:
    return Access({}, required=True)


def unknown() -> Access:
    raise Unavailable("not read", service="database")


def admission(access: Callable[[], Access], *, on_loopback: bool = True) -> Admission:
    return Admission(echo, access=access, on_loopback=on_loopback, rules=HostRules())


async def ask(
    access: Callable[[], Access], *headers: tuple[str, str], on_loopback: bool = True, path: str = "/v1/stats"
) -> tuple[int, dict[str, str]]:
    status, body, answered = await call(
        admission(access, on_loopback=on_loopback), method="GET", path=path, headers=headers
    )
    assert TEXT.encode() not in body
    assert SECRET.encode() not in body
    if status != 200:
        assert orjson.loads(body)["status"] == status
    return status, answered


def bearer(text: str = TEXT) -> tuple[str, str]:
    return "authorization", f"Bearer {text}"


@pytest.mark.anyio
async def test_without_keys_this_machine_may_do_everything_and_nobody_else_anything() -> None:
    assert (await ask(no_keys, LOCAL))[0] == 200
    assert (await ask(no_keys, LOCAL, ("origin", "http://localhost:3000")))[0] == 200
    assert (await ask(no_keys, PUBLIC))[0] == 403
    assert (await ask(no_keys, LOCAL, ("origin", "https://evil.example")))[0] == 403
    assert (await ask(no_keys, PUBLIC, path="/healthz"))[0] == 403


@pytest.mark.anyio
@pytest.mark.parametrize("access", [no_keys, all_revoked])
async def test_beyond_loopback_nobody_is_let_in_while_there_is_no_key(access: Callable[[], Access]) -> None:
    for headers in ([LOCAL], [PUBLIC], [LOCAL, bearer()]):
        status, answered = await ask(access, *headers, on_loopback=False)
        assert status == 401
        assert answered["www-authenticate"].startswith("Bearer")
    assert (await ask(access, PUBLIC, on_loopback=False, path="/healthz"))[0] == 200


@pytest.mark.anyio
async def test_revoking_the_last_key_closes_the_api_on_loopback_too() -> None:
    assert (await ask(all_revoked, LOCAL))[0] == 401
    assert (await ask(all_revoked, LOCAL, bearer()))[0] == 401


@pytest.mark.anyio
@pytest.mark.parametrize("on_loopback", [True, False])
async def test_before_keys_were_read_nobody_is_let_in_as_if_there_were_none(*, on_loopback: bool) -> None:
    for headers in ([LOCAL], [LOCAL, bearer()], [PUBLIC]):
        status, answered = await ask(unknown, *headers, on_loopback=on_loopback)
        assert (status, answered["retry-after"]) == (503, "1")
    assert (await ask(unknown, LOCAL, on_loopback=on_loopback, path="/healthz"))[0] == 200
    assert (await ask(unknown, PUBLIC, on_loopback=on_loopback, path="/healthz"))[0] == (403 if on_loopback else 200)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "header", [f"Bearer {TEXT}", f"bearer {TEXT}", f"BEARER {TEXT}", f"Bearer   {TEXT}", f"bEaReR {TEXT}"]
)
@pytest.mark.parametrize("host", [LOCAL, PUBLIC])
async def test_an_active_key_is_let_in(header: str, host: tuple[str, str]) -> None:
    assert (await ask(one_key, host, ("authorization", header)))[0] == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "header",
    [
        *("", "Bearer", "Bearer ", TEXT, f"Basic {TEXT}", f"Token {TEXT}", f"Bearer\t{TEXT}", f"Bearer{TEXT}"),
        *(f"Bearer {TEXT} ", f" Bearer {TEXT}", f"Bearer {TEXT}, Bearer {TEXT}", f"Bearer {TEXT} {TEXT}"),
        *(f"Bearer {TEXT[:-1]}", f"Bearer {TEXT}A", f"Bearer {TEXT.upper()}", f"Bearer {TEXT}=", f'Bearer "{TEXT}"'),
        *(f"Bearer {SECRET}", f"Bearer {KEY_ID}", f"Bearer ff_{KEY_ID}_", f"Bearer ff__{SECRET}", "Bearer null"),
        *(f"Bearer ff_{'0' * 16}_{SECRET}", f"Bearer ff_{KEY_ID}_{SECRET[::-1]}", "Bearer \xff\xfe\x00", "Bearer ü"),
        *("Bearer " + "A" * 1_000_000, f"Bearer {TEXT}" + "A" * 1_000_000, "Bearer " + "\xe9" * 100_000),
        *("Bearer " + " " * 1_000_000 + TEXT + " ", f"Bearer {TEXT}\x00", f"Bearer {TEXT}\n"),
    ],
    ids=lambda header: f"{header[:40]!r}+{len(header)}",
)
async def test_what_is_no_active_key_is_refused(header: str) -> None:
    status, answered = await ask(one_key, LOCAL, ("authorization", header))
    assert status == 401
    assert answered["www-authenticate"] == 'Bearer realm="forefill", error="invalid_token"'


@pytest.mark.anyio
async def test_without_a_header_the_challenge_names_no_error() -> None:
    status, answered = await ask(one_key, LOCAL)
    assert (status, answered["www-authenticate"]) == (401, 'Bearer realm="forefill"')


@pytest.mark.anyio
@pytest.mark.parametrize("second", [f"Bearer {TEXT}", "Bearer other", "Basic abc"])
async def test_two_authorization_headers_are_refused(second: str) -> None:
    assert (await ask(one_key, LOCAL, bearer(), ("authorization", second)))[0] == 401
    assert (await ask(one_key, LOCAL, ("authorization", second), bearer()))[0] == 401


@pytest.mark.anyio
async def test_a_key_does_not_excuse_a_foreign_origin() -> None:
    assert (await ask(one_key, PUBLIC, bearer(), ("origin", "https://evil.example")))[0] == 403
    assert (await ask(one_key, PUBLIC, bearer(), ("origin", "https://forefill.example.com")))[0] == 200


@pytest.mark.anyio
@pytest.mark.parametrize("path", OPEN_PATHS)
async def test_what_is_open_needs_no_key(path: str) -> None:
    assert (await ask(one_key, PUBLIC, path=path))[0] == 200
    assert (await ask(one_key, PUBLIC, bearer("wrong"), path=path))[0] == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    [
        *("/", "/metrics", "/v1/stats", "/nothing", "/healthz/", "//healthz", "/healthz/../v1/stats", "/HEALTHZ"),
        *("/%68ealthz", "/docs/x", "/static-offline-docs", "/static-offline-docsx", "", "/healthz?x"),
    ],
)
async def test_everything_else_needs_one(path: str) -> None:
    assert (await ask(one_key, LOCAL, path=path))[0] == 401


@pytest.mark.anyio
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
async def test_an_open_address_is_open_for_reading_only(method: str) -> None:
    for path in OPEN_PATHS:
        assert (await call(admission(one_key), method=method, path=path))[0] == 401


@pytest.mark.anyio
async def test_a_refused_request_is_not_read() -> None:
    assert (await call(admission(one_key), method="PUT", body=[]))[0] == 401  # nothing to read: asking would fail


@pytest.mark.anyio
async def test_a_web_socket_is_not_let_past() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("read")

    await admission(no_keys)({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def caller_seen(
    access: Callable[[], Access], headers: Headers, *, path: str = "/v1/stats", on_loopback: bool = True
) -> Caller:
    seen: list[Caller] = []

    async def look(scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(caller_of(Request(scope)))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    guard = Admission(look, access=access, on_loopback=on_loopback, rules=HostRules())

    async def receive() -> Message:
        raise AssertionError("read")

    async def send(_message: Message) -> None:
        return

    await guard(request_scope(method="GET", path=path, headers=headers), receive, send)
    (caller,) = seen
    return caller


@pytest.mark.anyio
async def test_the_application_learns_who_asks() -> None:
    assert (await caller_seen(one_key, [LOCAL, bearer()])).key == KEY
    assert (await caller_seen(one_key, [LOCAL, bearer()], path="/readyz")).key == KEY
    assert await caller_seen(no_keys, [LOCAL]) is LOCAL_CALLER


@pytest.mark.anyio
@pytest.mark.parametrize(("access", "on_loopback"), [(one_key, True), (no_keys, False), (unknown, True)])
async def test_whoever_comes_without_a_key_to_what_is_open_may_do_nothing_else(
    access: Callable[[], Access], *, on_loopback: bool
) -> None:
    caller = await caller_seen(access, [LOCAL], path="/readyz", on_loopback=on_loopback)
    assert caller is NOBODY
    assert caller.corpora == []
    assert not caller.reaches("a")
    with pytest.raises(Forbidden):
        caller.require_scope(list(AccessScope))
    with pytest.raises(Forbidden):
        caller.require_every_corpus()
