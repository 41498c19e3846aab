"""One engine over HTTP: whole answers and streams of events, each within its times, errors by one table.

Leaving a stream, or cancelling a call, closes its connection: that is how an engine learns that nobody listens.
"""

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson

from pipeline.bounded_http import MAX_BYTES, AnswerBounds, BoundedAsyncTransport, async_transport
from pipeline.errors import ForefillError, Unavailable
from pipeline.generation.event_stream import EventReader
from pipeline.generation.refusals import SERVICE, broken_off, refusal, unreadable
from pipeline.generation.timeouts import EngineTimeouts, paced, within_total

MAX_ANSWER_BYTES = 4 * 1024 * 1024
"""Most bytes of an answer that is no completion: ids of a probe, a list of models."""

_LEAST_BYTES = 256 * 1024
_BYTES_PER_TOKEN = 96
_OTHER_EVENTS = 64
_SAID_BYTES = 200
_END_OF_STREAM = b"[DONE]"


class HttpConnection:
    """A pool of connections to one base URL."""

    def __init__(self, base_url: str, *, headers: Mapping[str, str], timeouts: EngineTimeouts) -> None:
        self._timeouts = timeouts
        self._place = urlsplit(base_url).netloc.rpartition("@")[2]
        self._client = httpx.AsyncClient(
            base_url=base_url,
            headers=dict(headers),
            timeout=httpx.Timeout(None, connect=timeouts.connect_s),  # the rest is paced below
            transport=engine_transport(base_url, kept_connections=_kept_connections(base_url)),
        )

    def __repr__(self) -> str:
        return f"HttpConnection({self._place})"

    async def get(self, path: str) -> Any:
        """Return the parsed JSON at a path; see `post`."""
        return await within_total(self._whole("GET", path, None, MAX_ANSWER_BYTES), self._timeouts)

    async def post(self, path: str, body: object, *, max_bytes: int = MAX_ANSWER_BYTES) -> Any:
        """Send JSON (numpy arrays and all) and return the parsed answer.

        Args:
            path: Below the base URL.
            body: What is sent.
            max_bytes: Of the answer.

        Raises:
            InvalidInput: The engine refuses the request itself.
            Unavailable: It cannot be reached, is too slow, failed, or answers no JSON.
        """
        return await within_total(self._whole("POST", path, body, max_bytes), self._timeouts)

    def events(self, path: str, body: object, *, max_bytes: int = MAX_ANSWER_BYTES) -> AsyncGenerator[Any]:
        """Send JSON and yield the parsed data of each event of the answer, up to its end.

        Args:
            path: Below the base URL.
            body: What is sent.
            max_bytes: Of all events together.

        Raises:
            InvalidInput: The engine refuses the request itself.
            Unavailable: See `post`; or a time between events is over.
        """
        return paced(self._events(path, body, max_bytes), self._timeouts)

    async def aclose(self) -> None:
        """Close pooled connections."""
        await self._client.aclose()

    async def _whole(self, method: str, path: str, body: object, max_bytes: int) -> Any:
        with self._translated():
            async with self._client.stream(method, path, **_sent(body, max_bytes)) as response:
                content = await response.aread()
        if response.status_code != HTTPStatus.OK:
            raise _refusal_of(response, content)
        return _parsed(content)

    async def _events(self, path: str, body: object, max_bytes: int) -> AsyncGenerator[Any]:
        reader = EventReader()
        with self._translated():
            async with self._client.stream("POST", path, **_sent(body, max_bytes)) as response:
                if response.status_code != HTTPStatus.OK:
                    raise _refusal_of(response, await response.aread())
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise unreadable("is no stream of events")
                async for received in response.aiter_bytes():
                    for data in reader.feed(received):
                        if data == _END_OF_STREAM:
                            return
                        yield _parsed(data)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Give every error of the HTTP library its place in Forefill's tree."""
        try:
            yield
        except httpx.ConnectTimeout as error:
            raise self._unavailable(f"did not answer within {self._timeouts.connect_s:g} s") from error
        except httpx.ConnectError as error:
            raise self._unavailable("cannot be reached") from error
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError) as error:
            raise broken_off() from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise self._unavailable(f"failed ({type(error).__name__})") from error

    def _unavailable(self, what: str) -> Unavailable:
        return Unavailable(f"the engine at {self._place} {what}", service=SERVICE)


def engine_transport(base_url: str, *, kept_connections: int) -> BoundedAsyncTransport:
    """Return the transport to an engine; its times are paced by the caller."""
    bounds = AnswerBounds(SERVICE, "the engine", total_s=None, max_bytes=MAX_ANSWER_BYTES)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=kept_connections)
    return async_transport(bounds, url=base_url, limits=limits)


def answer_bytes(prompt_tokens: int, max_tokens: int) -> int:
    """Return how large a whole answer can be at most: a token's id and its text, escaped, and the prompt's ids."""
    return _LEAST_BYTES + _BYTES_PER_TOKEN * (prompt_tokens + max_tokens)


def streamed_bytes(prompt_tokens: int, max_tokens: int) -> int:
    """Return how large all events of an answer can be at most: some engines repeat in each what there is so far."""
    return _LEAST_BYTES + (max_tokens + _OTHER_EVENTS) * answer_bytes(prompt_tokens, max_tokens)


def _sent(body: object, max_bytes: int) -> dict[str, Any]:
    extensions = {MAX_BYTES: max_bytes}
    if body is None:
        return {"extensions": extensions}
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    return {"content": content, "headers": {"content-type": "application/json"}, "extensions": extensions}


def _parsed(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return _parsed_leniently(content)


def _parsed_leniently(content: bytes) -> Any:
    """Read what the strict parser refuses: half a character, as an escape, is no error yet."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise unreadable() from error


def _refusal_of(response: httpx.Response, content: bytes) -> ForefillError:
    return refusal(response.status_code, refusal_message(content), retry_after=response.headers.get("retry-after"))


def refusal_message(content: bytes) -> str:
    """Return what a refusal says about itself in one of the usual fields, or how its page begins: for the log."""
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content[:_SAID_BYTES].decode(errors="replace")
    fields = body if isinstance(body, dict) else {}
    inner = fields.get("error")
    if isinstance(inner, dict):
        fields = inner
    return next((fields[name] for name in ("message", "detail", "error") if isinstance(fields.get(name), str)), "")


def _kept_connections(url: str) -> int:
    """Return how many idle connections are kept: none without TLS.

    Engines close idle connections when they like (llama.cpp after every stream), and a prompt sent into a closing one
    fails, or would have to be sent twice. A new connection costs nothing beside a prompt, except with TLS.
    """
    return 32 if urlsplit(url).scheme == "https" else 0
