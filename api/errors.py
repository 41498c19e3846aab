"""Errors as `application/problem+json`: one table from Forefill's tree to HTTP, and a boundary for everything else.

A caller's mistake is never a 500, and a 500 never says more than that: what happened is in the log.
"""

import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.errors import Conflict, Forbidden, ForefillError, InvalidInput, NotFound, TooLarge, Unavailable
from pipeline.services.presenting import to_json
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_MAX_DETAIL_CHARACTERS = 500
_MAX_LOGGED_PATH = 200

STATUSES: Mapping[type[ForefillError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    Forbidden: HTTPStatus.FORBIDDEN,
    Conflict: HTTPStatus.CONFLICT,
    InvalidInput: HTTPStatus.UNPROCESSABLE_ENTITY,
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""What a caller is told; every other error is one of the deployment, 500."""


def problem(status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> Response:
    """Return a problem document (RFC 9457).

    Args:
        status: HTTP status; decides type and title.
        detail: One sentence for whoever sent the request.
        headers: Further headers.
        members: Further members of the document.
    """
    title = HTTPStatus(status).phrase
    document = {
        "type": f"urn:forefill:problem:{title.lower().replace(' ', '-')}",
        "title": title,
        "status": int(status),
        "detail": _printable(detail),
        **members,
    }
    return Response(to_json(document), status_code=status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def problem_of(error: ForefillError) -> Response:
    """Return what a caller is told about one of Forefill's errors."""
    status = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if status is None:
        _log.error("api.refused", kind=type(error).__name__, error=_printable(str(error)))
        return _unexpected()
    members: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if isinstance(error, InvalidInput) and error.item is not None:
        members["item"] = _printable(error.item)
    if isinstance(error, Unavailable):
        members["service"] = error.service
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return problem(status, str(error), headers=headers, **members)


def install_error_handlers(app: FastAPI) -> None:
    """Make an application answer every error with a problem document."""
    app.add_exception_handler(ForefillError, _on_forefill_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


class ErrorBoundary:
    """Turns an error nobody expected into a 500 without details, and logs it. Pure ASGI, outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def tracked(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, tracked)
        except Exception:  # the boundary: whatever it is, the caller gets an answer
            _log.exception("api.unexpected", method=scope["method"], path=scope["path"][:_MAX_LOGGED_PATH])
            if started:
                raise
            await _unexpected()(scope, receive, send)


async def _on_forefill_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ForefillError)  # noqa: S101  # registered for it
    return problem_of(error)


async def _on_validation_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for it
    errors: Sequence[Mapping[str, Any]] = error.errors()
    place, message = _describe(errors[0])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{place}: {message}{more}" if place else f"{message}{more}"
    members: dict[str, Any] = {"item": _printable(place)} if place else {}
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, **members)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Answer for what the framework refuses by itself: unknown addresses and methods."""
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it
    headers = dict(error.headers or {})
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            detail = "there is nothing at this address; see /docs for those there are"
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(allowed_methods(request))
            detail = f"this address does not take {request.method}, but {allowed}"
            headers["Allow"] = allowed
        case _:
            detail = error.detail
    return problem(error.status_code, detail, headers=headers)


def allowed_methods(request: Request) -> list[str]:
    """Return the methods of all routes at a request's address; the framework names those of the first one only."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        routes = [route for route in request.app.router.routes if not isinstance(route, Mount)]
        return any(route.matches(scope)[0] is Match.FULL for route in routes)

    taken = [method for method in _METHODS if takes(method)] or ["GET"]  # files of a folder, whatever their names
    return [*taken, "HEAD"] if "GET" in taken else taken


def _describe(error: Mapping[str, Any]) -> tuple[str, str]:
    """Return where a validation error is, as `queries[2].top_k`, and what is wrong there."""
    if error["type"] == "json_invalid":
        return "", f"the body is not JSON: {error['ctx']['error']}, at character {error['loc'][-1]}"
    place = ""
    for part in error["loc"][1:]:  # the first says body, query, path or header
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    if error["type"] == "missing" and not place:
        return "", "the body is missing"
    message = error["ctx"]["error"] if error["type"] == "value_error" else error["msg"]
    return place or str(error["loc"][0]), _sentence(str(message))


def _sentence(message: str) -> str:
    return message[:1].lower() + message[1:]


def _unexpected() -> Response:
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "something went wrong in the service; its log says what")


def _printable(text: str) -> str:
    """Return text that JSON can hold, lone surrogates escaped, and not too much of it."""
    return text[:_MAX_DETAIL_CHARACTERS].encode("utf-8", "backslashreplace").decode()
