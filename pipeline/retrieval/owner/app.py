"""HTTP around the shelf: key, size limit, parsing, and Qdrant's shape of answers and errors."""

import hmac
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from pipeline.errors import Conflict, ForefillError, InvalidInput, NotFound, TooLarge
from pipeline.retrieval.owner.engine import OutOfSpaceError
from pipeline.retrieval.owner.routes import ENDPOINTS, Endpoint
from pipeline.retrieval.owner.shelf import Shelf
from pipeline.telemetry.logs import get_logger

SPOKEN_VERSION = "1.20.0"
"""Version of Qdrant's REST that is spoken; qdrant-client compares it with its own."""

_ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_HARMLESS_PARAMETERS = {"wait", "ordering", "timeout", "consistency"}
"""Query parameters that are always fulfilled: one copy, one writer, applied before the answer."""
_STATUS: dict[type[ForefillError], int] = {
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    InvalidInput: 400,
    OutOfSpaceError: 507,
}

_log = get_logger(__name__)
_Handler = Callable[[Request], Awaitable[Response]]


def build_app(shelf: Shelf, *, api_key: str, max_body_bytes: int, lifespan: Lifespan[Starlette]) -> Starlette:
    """Return the ASGI application.

    Args:
        shelf: Collections, open until the lifespan ends.
        api_key: Every request but the probes must carry it in `api-key`.
        max_body_bytes: A longer body is refused with 413, and not read to its end.
        lifespan: What runs around serving.
    """
    probes = [Route(path, _alive, methods=["GET"]) for path in ("/healthz", "/livez", "/readyz")]
    served = [
        Route(each.path, _guarded(_served(each, shelf, max_body_bytes=max_body_bytes), api_key), methods=[each.method])
        for each in ENDPOINTS
    ]
    others = [
        Route("/", _guarded(_version, api_key), methods=["GET"]),
        Route("/{path:path}", _guarded(_not_served, api_key), methods=_ANY_METHOD),
    ]
    return Starlette(routes=[*probes, *served, *others], lifespan=lifespan)


async def _alive(_request: Request) -> Response:
    """Shards are loaded before the socket is opened, so whoever gets an answer can be served."""
    return PlainTextResponse("all shards are ready")


async def _version(_request: Request) -> Response:
    body = {"title": "Forefill: embedded Qdrant engine, a subset of Qdrant's REST", "version": SPOKEN_VERSION}
    return Response(orjson.dumps(body), media_type="application/json")


async def _not_served(request: Request) -> Response:
    raise InvalidInput(f"The embedded engine does not serve {request.method} {request.url.path}; run a Qdrant server")


def _guarded(handler: _Handler, api_key: str) -> _Handler:
    """Ask for the key before anything else is looked at, and answer every error in Qdrant's shape."""
    expected = api_key.encode()

    async def guarded(request: Request) -> Response:
        started = time.perf_counter()
        if not hmac.compare_digest(request.headers.get("api-key", "").encode(), expected):
            return _failure(401, "Must provide the API key in the header `api-key`", started)
        try:
            return await handler(request)
        except ForefillError as error:
            status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
            if status >= 500:
                _log.exception("qdrant.engine_failure", method=request.method, path=request.url.path)
            return _failure(status, str(error), started)

    return guarded


def _served(endpoint: Endpoint, shelf: Shelf, *, max_body_bytes: int) -> _Handler:
    async def handler(request: Request) -> Response:
        started = time.perf_counter()
        if unknown := request.query_params.keys() - _HARMLESS_PARAMETERS:
            raise InvalidInput(f"The embedded engine does not serve the query parameters {sorted(unknown)}")
        body = _parse(endpoint, await _read(request, max_bytes=max_body_bytes))
        result = endpoint.handle(shelf, request.path_params.get("name", ""), body)
        return _json(200, {"result": result, "status": "ok", "time": time.perf_counter() - started})

    return handler


async def _read(request: Request, *, max_bytes: int) -> bytes:
    """Read the body, stopping as soon as it is too long."""
    too_large = TooLarge(f"A request body may have {max_bytes} bytes")
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or int(declared) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    except ClientDisconnect as error:
        raise InvalidInput("The request ended before its body did") from error
    return bytes(body)


def _parse(endpoint: Endpoint, body: bytes) -> Any:
    """Parse strictly: JSON has no NaN, and models refuse names they do not know."""
    try:
        return endpoint.body.validate_python(orjson.loads(body or b"{}"))
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise InvalidInput(f"The body is not what this path takes: {where}: {first['msg']}") from error


def _failure(status: int, message: str, started: float) -> Response:
    return _json(status, {"status": {"error": message}, "time": time.perf_counter() - started})


def _json(status: int, content: dict[str, Any]) -> Response:
    return Response(orjson.dumps(content), status_code=status, media_type="application/json")
