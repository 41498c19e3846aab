"""HTTP around the shelf, one ASGI application: key, size limit, parsing, and Qdrant's shape of answers and errors."""

import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

import orjson
from pydantic import ValidationError

from pipeline.errors import Conflict, ForefillError, InvalidInput, NotFound, TooLarge
from pipeline.listening import Refusal
from pipeline.retrieval.owner.engine import OutOfSpaceError
from pipeline.retrieval.owner.routes import ENDPOINTS, Endpoint
from pipeline.retrieval.owner.shelf import Shelf
from pipeline.retrieval.owner.writes import MAX_NESTING, is_nested_deeper
from pipeline.telemetry.logs import get_logger

SPOKEN_VERSION = "1.20.0"
"""Version of Qdrant's REST that is spoken; qdrant-client compares it with its own."""

PROBES = ("/healthz", "/livez", "/readyz")
"""Paths that are answered without the key."""
_HARMLESS_PARAMETERS = {"wait", "ordering", "timeout", "consistency"}
"""Query parameters that are always fulfilled: one copy, one writer, applied before the answer."""
_STATUS: dict[type[ForefillError], int] = {
    NotFound: 404,
    Conflict: 409,
    TooLarge: 413,
    InvalidInput: 400,
    OutOfSpaceError: 507,
}
"""The first that fits counts; 500 if none does."""

_MAX_DEPTH = MAX_NESTING + 8
"""Levels of a body: a payload's and those around it. Models take seconds for filters some hundred levels deep."""

_log = get_logger(__name__)
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    media_type: bytes = b"application/json"


class OwnerApp:
    """The ASGI application. Each request is handled without a pause between reading its body and its answer.

    Args:
        shelf: Collections; open as long as the application serves.
        api_key: Every request but the probes must carry it in `api-key`.
        max_body_bytes: A longer body is refused with 413, and not read to its end.
    """

    def __init__(self, shelf: Shelf, *, api_key: str, max_body_bytes: int) -> None:
        self._shelf = shelf
        self._api_key = api_key.encode()
        self._max_body_bytes = max_body_bytes
        self._endpoints = {(each.method, each.path): each for each in ENDPOINTS}

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Answer one request."""
        answer = await self._answer(scope, receive)
        headers = [(b"content-type", answer.media_type), (b"content-length", b"%d" % len(answer.content))]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.content})

    async def _answer(self, scope: _Message, receive: _Receive) -> _Answer:
        """Ask for the key before anything else is looked at, and answer every error in Qdrant's shape."""
        started = time.perf_counter()
        if scope["path"] in PROBES and scope["method"] in ("GET", "HEAD"):
            # Shards are loaded before the socket is opened, so whoever gets an answer can be served.
            return _Answer(200, b"all shards are ready", b"text/plain")
        headers = dict(scope["headers"])
        if not hmac.compare_digest(headers.get(b"api-key", b""), self._api_key):
            return _failure(401, "Must provide the API key in the header `api-key`", started)
        try:
            return await self._serve(scope, headers, receive, started)
        except ForefillError as error:
            status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
            if status >= 500:
                _log.exception("qdrant.engine_failure", method=scope["method"], path=scope["path"])
            return _failure(status, str(error), started)

    async def _serve(self, scope: _Message, headers: dict[bytes, bytes], receive: _Receive, started: float) -> _Answer:
        if (scope["method"], scope["path"]) == ("GET", "/"):
            title = "Forefill: embedded Qdrant engine, a subset of Qdrant's REST"
            return _Answer(200, orjson.dumps({"title": title, "version": SPOKEN_VERSION}))
        path, name = _split(scope["path"])
        endpoint = self._endpoints.get((scope["method"], path))
        if endpoint is None:
            raise InvalidInput(
                f"The embedded engine does not serve {scope['method']} {scope['path']}; run a Qdrant server for it"
            )
        _check_parameters(scope["query_string"])
        body = _parse(endpoint, await self._read(headers, receive))
        result = endpoint.handle(self._shelf, name, body)
        return _Answer(200, orjson.dumps({"result": result, "status": "ok", "time": time.perf_counter() - started}))

    async def _read(self, headers: dict[bytes, bytes], receive: _Receive) -> bytes:
        """Read the body, stopping as soon as it is too long."""
        too_large = TooLarge(f"A request body may have {self._max_body_bytes} bytes")
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_body_bytes:
            raise too_large
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidInput("The request ended before its body did")
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise too_large
            if not message.get("more_body", False):
                return bytes(body)


def _split(path: str) -> tuple[str, str]:
    """Return a path as the table of endpoints writes it, and the collection's name in it ("" without one)."""
    parts = path.split("/")
    if len(parts) < 3 or parts[1] != "collections":
        return path, ""
    return "/".join(["", "collections", "{name}", *parts[3:]]), parts[2]


def _check_parameters(query: bytes) -> None:
    names = {name for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
    if unknown := names - _HARMLESS_PARAMETERS:
        raise InvalidInput(f"The embedded engine does not serve the query parameters {sorted(unknown)}")


def _parse(endpoint: Endpoint, body: bytes) -> Any:
    """Parse strictly: JSON has no NaN, and models refuse names they do not know."""
    try:
        content = orjson.loads(body or b"{}")
        if isinstance(content, dict | list) and is_nested_deeper(content, _MAX_DEPTH, reads_vectors=False):
            raise InvalidInput(f"The body may be nested {_MAX_DEPTH} deep")
        return endpoint.body.validate_python(content)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(f"The body is not JSON: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:200]
        raise InvalidInput(f"The body is not what this path takes: {where}: {first['msg']}") from error


def refusal(_status: HTTPStatus, detail: str) -> Refusal:
    """Return what is answered where no request came to the application."""
    answer = _failure(0, detail, time.perf_counter())
    return Refusal(answer.media_type, answer.content)


def _failure(status: int, message: str, started: float) -> _Answer:
    return _Answer(status, orjson.dumps({"status": {"error": message}, "time": time.perf_counter() - started}))
