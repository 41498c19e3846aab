"""Who is let in: `Host`, `Origin`, and the API key, before anything of a request's body is read. Pure ASGI.

    keys                       bound to loopback                      bound beyond it
    none was ever made         loopback Host and Origin: everything   401, but for what is open
    there are, or were         `HostRules` and an active key          the same
    not known yet (no SQL,     503, but for what is open to           503, but for what is open
    and no copy of it)         loopback Host and Origin

Revoking the last key therefore closes the API; it does not open it. Whatever is not in this table is refused.
"""

import re
from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.access import LOCAL, NOBODY, Caller, is_open, set_caller
from api.errors import problem
from api.hosts import HostRules, refuse_beyond_loopback
from pipeline.documents.access import ApiKey, find_key
from pipeline.errors import Unavailable
from pipeline.services.configuration import Access

_BEARER = re.compile(r"bearer +(\S+)", re.IGNORECASE)
_CHALLENGE = 'Bearer realm="forefill"'
_POLICY_VIOLATION = 1008

NO_KEY = "this needs an API key: send it as `Authorization: Bearer KEY`"
NO_KEY_MADE = "there is no API key yet, and this API listens beyond loopback: make one with `forefill keys add`"
WRONG_KEY = "this API key is not valid, or was revoked"


class Admission:
    """Lets a request in with its caller, or answers instead of the application."""

    def __init__(self, app: ASGIApp, *, access: Callable[[], Access], on_loopback: bool, rules: HostRules) -> None:
        """Remember what is needed.

        Args:
            app: What requests are let in to.
            access: Returns what is known of keys; raises Unavailable while nothing is.
            on_loopback: Whether only this machine reaches the port.
            rules: For `Host` and `Origin` once there are keys.
        """
        self._app = app
        self._access = access
        self._on_loopback = on_loopback
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
        elif isinstance(admitted := self.admit(scope), Caller):
            await self._app(set_caller(scope, admitted), receive, send)
        else:
            await admitted(scope, receive, send)

    def admit(self, scope: Scope) -> Caller | Response:
        """Return a request's caller, or the answer to one that goes no further."""
        headers = Headers(scope=scope)
        try:
            access = self._access()
        except Unavailable:
            return self._without_knowing(scope, headers)
        if access.required:
            return self._with_keys(scope, headers, access)
        return self._without_keys(scope, headers)

    def _with_keys(self, scope: Scope, headers: Headers, access: Access) -> Caller | Response:
        opened = _is_open(scope)
        reason = self._rules.refuse(headers, any_host=opened)
        if reason is not None:
            return problem(HTTPStatus.FORBIDDEN, reason)
        key = _presented(headers, access)
        if key is not None:
            return Caller(key)
        if opened:
            return NOBODY
        return _unauthorized(WRONG_KEY if "authorization" in headers else NO_KEY, headers)

    def _without_keys(self, scope: Scope, headers: Headers) -> Caller | Response:
        if self._on_loopback:
            reason = refuse_beyond_loopback(headers)
            return LOCAL if reason is None else problem(HTTPStatus.FORBIDDEN, reason)
        return NOBODY if _is_open(scope) else _unauthorized(NO_KEY_MADE, headers)

    def _without_knowing(self, scope: Scope, headers: Headers) -> Caller | Response:
        if not _is_open(scope):
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the database has not said yet which API keys there are",
                headers={"Retry-After": "1"},
                service="database",
            )
        admitted = self._without_keys(scope, headers)
        return NOBODY if isinstance(admitted, Caller) else admitted


def _is_open(scope: Scope) -> bool:
    return is_open(scope["method"], scope["path"])


def _presented(headers: Headers, access: Access) -> ApiKey | None:
    """Return the active key of a request; two Authorization headers are none."""
    stated = headers.getlist("authorization")
    match = _BEARER.fullmatch(stated[0]) if len(stated) == 1 else None
    return None if match is None else find_key(access.keys, match[1])


def _unauthorized(detail: str, headers: Headers) -> Response:
    challenge = f'{_CHALLENGE}, error="invalid_token"' if "authorization" in headers else _CHALLENGE
    return problem(HTTPStatus.UNAUTHORIZED, detail, headers={"WWW-Authenticate": challenge})
