"""What a body must be before anything reads it: JSON, and not too large. Pure ASGI.

Where requests may come from is `admission`'s; a cross-site form or script without preflight shows in `Content-Type`.
"""

import asyncio
from abc import ABC, abstractmethod
from contextlib import suppress
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem

_JSON_CHARSETS = ("utf-8", "utf8")
_LINGER_BYTES = 64 * 1024 * 1024
_LINGER_S = 3.0
_WITHOUT_BODY = ("GET", "HEAD", "OPTIONS")


class _Guard(ABC):
    """Answers instead of the application where `refuse` says so."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request and pass it on."""
        answer = self.refuse(scope) if scope["type"] == "http" else None
        await (answer or self._app)(scope, receive, send)

    @abstractmethod
    def refuse(self, scope: Scope) -> Response | None:
        """Return the answer to a request that goes no further, None for one that does."""


class JsonOnly(_Guard):
    """Refuses bodies that do not say they are JSON with 415; without a body nothing needs to be said."""

    def refuse(self, scope: Scope) -> Response | None:
        """Return 415 for other media types."""
        if scope["method"] in _WITHOUT_BODY:
            return None
        headers = Headers(scope=scope)
        stated = headers.get("content-type")
        if stated is None and not _has_body(headers):
            return None
        if stated is not None and _is_json(stated):
            return None
        return problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body must be JSON in UTF-8, with Content-Type: application/json"
        )


class BodyLimit:
    """Refuses bodies over a limit with 413: at once if they state their length, else as soon as they exceed it."""

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on while its body is within the limit."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        stated = headers.get("content-length", "")
        body = _CountedBody(receive, send, max_bytes=self._max_bytes)
        if stated.isdecimal() and int(stated[:20]) > self._max_bytes:
            body.is_too_large = True
        else:
            with suppress(_BodyTooLargeError):  # the application may also have made an answer of it
                await self._app(scope, body.receive, body.send)
        if body.is_too_large and not body.answered:
            if not body.ended and "expect" not in headers:
                await _drain(receive)
            await self._too_large()(scope, receive, send)

    def _too_large(self) -> Response:
        return problem(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"the body is over {self._max_bytes:,} bytes",
            headers={"Connection": "close"},  # not all of it was read
        )


async def _drain(receive: Receive) -> None:
    """Read on for a moment: a client that is still writing when the connection closes may never see the answer."""
    room = _LINGER_BYTES
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            while room > 0:
                message = await receive()
                room -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class _BodyTooLargeError(Exception):
    """Ends the reading of a body; never leaves `BodyLimit`."""


class _CountedBody:
    """Counts a body while it is read; above the limit nothing of it, and no answer to it, goes through."""

    def __init__(self, receive: Receive, send: Send, *, max_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._room = max_bytes
        self.is_too_large = False
        self.ended = False
        """Whether all of it was read."""
        self.answered = False
        """Whether an answer had begun before the limit was exceeded."""

    async def receive(self) -> Message:
        message = await self._receive()
        self.ended = not message.get("more_body", False)
        self._room -= len(message.get("body", b""))
        if self._room < 0:
            self.is_too_large = True
            raise _BodyTooLargeError
        return message

    async def send(self, message: Message) -> None:
        if self.is_too_large and not self.answered:
            return
        self.answered = True
        await self._send(message)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _is_json(content_type: str) -> bool:
    media_type, _, parameters = content_type.partition(";")
    if media_type.strip().lower() != "application/json":
        return False
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in _JSON_CHARSETS:
            return False
    return True
