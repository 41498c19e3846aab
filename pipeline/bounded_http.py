"""HTTP to outside services whose answers are input: bounded in time and bytes, as JSON or events, from where we asked.

A client library's time-outs are for each read, so that an answer which drips, or has no end, holds its caller for ever;
and a parser holds the interpreter for as long as the answer is long, whatever thread it runs in. So the transports
below every client bound the whole exchange before anything is parsed. What they refuse is `Unavailable`, in our words.

Only answers whose content type says events are handed on while they come: their times are their reader's to bound.
"""

import asyncio
import math
import ssl
import threading
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from pipeline.errors import Unavailable

MAX_BYTES: Final = "max_bytes"
"""Extension of a request: most bytes of its answer, where they depend on what is asked."""
MAX_LISTS: Final = 150_000
"""Opening brackets in one JSON answer: parsing takes seconds where millions of lists are in a few megabytes."""

_ERROR_BYTES = 64 * 1024
"""What is read of an answer that is an error; the rest is left."""
_WRITTEN_TOGETHER = 64 * 1024
_KEEP_ALIVE_S = 30.0
_NEARLY_S = 0.05
"""A time-out that ends this long before the deadline was set by it."""
_EVENTS = "text/event-stream"


@dataclass(frozen=True, slots=True)
class AnswerBounds:
    """What is taken from one service."""

    service: str
    """Which one, as `Unavailable` says it."""
    name: str
    """What a sentence calls it: `Qdrant`, `the embedder`, `the engine`."""
    total_s: float | None
    """From sending a request to the last byte of its answer; None where the caller paces it."""
    max_bytes: int
    """Of an answer; a request's extension `max_bytes` goes before it."""

    def unavailable(self, what: str) -> Unavailable:
        """Return the error for an answer that is not taken."""
        return Unavailable(f"{self.name} {what}", service=self.service)

    def late(self) -> Unavailable:
        """Return the error for an answer that is not whole in time."""
        return self.unavailable(f"did not answer in time ({self.total_s:g} s)")

    def check_head(self, status: int, headers: httpx.Headers) -> None:
        """Refuse an answer that is a redirect, compressed, or neither JSON nor events.

        Raises:
            Unavailable: It is.
        """
        if 300 <= status < 400:
            raise self.unavailable(f"answered {status}, a redirect: check its URL")
        if headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise self.unavailable("answered compressed, which it was not asked to")
        if status < 400 and not _is_readable(headers.get("content-type")):
            raise self.unavailable("answered something that is no JSON: check its URL")

    def check_content(self, content: bytes) -> None:
        """Refuse JSON that would take too long to parse.

        Raises:
            Unavailable: It would.
        """
        if content.count(b"[") + content.count(b"{") > MAX_LISTS:
            raise self.unavailable("answered more lists than anything that was asked for")


class _Taken:
    """The bytes of one answer so far."""

    def __init__(self, bounds: AnswerBounds, request: httpx.Request, status: int) -> None:
        self._bounds = bounds
        self._is_error = status >= 400
        self._limit = _ERROR_BYTES if self._is_error else int(request.extensions.get(MAX_BYTES, bounds.max_bytes))
        self._size = 0
        self._parts: list[bytes] = []

    def take(self, part: bytes) -> bool:
        """Keep a part, and return whether more is wanted.

        Raises:
            Unavailable: The answer is too large.
        """
        self.count(part)
        self._parts.append(part)
        return self._size <= self._limit

    def count(self, part: bytes) -> None:
        """Count a part that is handed on.

        Raises:
            Unavailable: The answer is too large.
        """
        self._size += len(part)
        if self._size > self._limit and not self._is_error:
            raise self._bounds.unavailable(f"answered more than {self._limit:,} bytes")

    def content(self) -> bytes:
        """Return what was kept; of an error at most its beginning.

        Raises:
            Unavailable: It is JSON that would take too long to parse.
        """
        content = b"".join(self._parts)[: self._limit]
        if not self._is_error:
            self._bounds.check_content(content)
        return content


class BoundedAsyncTransport(httpx.AsyncBaseTransport):
    """For asynchronous clients, over any other transport."""

    def __init__(self, inner: httpx.AsyncBaseTransport, bounds: AnswerBounds) -> None:
        self._inner = inner
        self._bounds = bounds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.AsyncBaseTransport`; the answer has been read, unless it is a stream of events."""
        request.headers["accept-encoding"] = "identity"
        try:
            async with asyncio.timeout(self._bounds.total_s):
                return await self._answer(request)
        except TimeoutError as error:
            raise self._bounds.late() from error

    async def aclose(self) -> None:
        """Close connections."""
        await self._inner.aclose()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        body = cast("httpx.AsyncByteStream", response.stream)
        taken = _Taken(self._bounds, request, response.status_code)
        is_handed_on = False
        try:
            self._bounds.check_head(response.status_code, response.headers)
            if response.status_code < 400 and _media_type(response.headers.get("content-type")) == _EVENTS:
                is_handed_on = True
                return httpx.Response(response.status_code, headers=response.headers, stream=_Counted(body, taken))
            async for part in body:
                if not taken.take(part):
                    break
        finally:
            if not is_handed_on:
                await body.aclose()
        return _read_response(response.status_code, response.headers, taken.content())


class _Counted(httpx.AsyncByteStream):
    """A stream that ends with an error where it is too long."""

    def __init__(self, inner: httpx.AsyncByteStream, taken: _Taken) -> None:
        self._inner = inner
        self._taken = taken

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            self._taken.count(part)
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


class BoundedTransport(httpx.BaseTransport):
    """For synchronous clients: a pool of connections whose every read and write ends at the call's deadline."""

    def __init__(self, bounds: AnswerBounds, *, url: str, uds: str | None = None, proxy: str | None = None) -> None:
        """Connect nothing yet.

        Args:
            bounds: With a time.
            url: Of the service.
            uds: Path of a Unix socket.
            proxy: URL of a proxy.
        """
        self._bounds = bounds
        self._deadline = _Deadline()
        common: dict[str, Any] = {
            "ssl_context": _ssl_context(url),
            "max_connections": None,
            "max_keepalive_connections": 10,
            "keepalive_expiry": _KEEP_ALIVE_S,
            "network_backend": _ClockedBackend(self._deadline),
        }
        self._pool = (
            httpcore.ConnectionPool(uds=uds, **common)
            if proxy is None
            else httpcore.HTTPProxy(proxy_url=proxy, **common)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """See `httpx.BaseTransport`; the answer has been read."""
        request.headers["accept-encoding"] = "identity"
        self._deadline.at = math.inf if self._bounds.total_s is None else time.monotonic() + self._bounds.total_s
        try:
            return self._answer(request)
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, httpcore.ProxyError) as error:
            if time.monotonic() >= self._deadline.at - _NEARLY_S:
                raise self._bounds.late() from error
            # httpx has one of the same name for each.
            raise getattr(httpx, type(error).__name__)(str(error), request=request) from error

    def close(self) -> None:
        """Close connections."""
        self._pool.close()

    def _answer(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        sent = httpcore.Request(
            method=request.method,
            url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
            headers=request.headers.raw,
            content=cast("httpx.SyncByteStream", request.stream),
            extensions=request.extensions,
        )
        response = self._pool.handle_request(sent)
        headers = httpx.Headers(response.headers)
        taken = _Taken(self._bounds, request, response.status)
        try:
            self._bounds.check_head(response.status, headers)
            for part in cast("Iterable[bytes]", response.stream):
                if not taken.take(part):
                    break
        finally:
            response.close()
        return _read_response(response.status, headers, taken.content())


class _Deadline(threading.local):
    """When the call under way in this thread must be over, by the monotonic clock."""

    at = math.inf

    def left_s(self, timeout: float | None) -> float | None:
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time is over")
        return timeout if left == math.inf else left if timeout is None else min(timeout, left)


class _ClockedStream(httpcore.NetworkStream):
    """A connection that nobody can wait for longer than the call has time."""

    def __init__(self, inner: httpcore.NetworkStream, deadline: _Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, timeout=self._deadline.left_s(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _WRITTEN_TOGETHER):
            part = buffer[start : start + _WRITTEN_TOGETHER]
            self._inner.write(part, timeout=self._deadline.left_s(timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        timeout = self._deadline.left_s(timeout)
        return _ClockedStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _ClockedBackend(httpcore.NetworkBackend):
    """Makes such connections."""

    def __init__(self, deadline: _Deadline) -> None:
        self._inner = httpcore.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        timeout = self._deadline.left_s(timeout)
        stream = self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        return _ClockedStream(stream, self._deadline)

    def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_unix_socket(path, self._deadline.left_s(timeout), socket_options)
        return _ClockedStream(stream, self._deadline)


def async_transport(
    bounds: AnswerBounds, *, url: str, limits: httpx.Limits, uds: str | None = None
) -> BoundedAsyncTransport:
    """Return a transport to one URL, over the proxy that the environment names for it.

    Args:
        bounds: Of each answer.
        url: Of the service.
        limits: Of its connections.
        uds: Path of a Unix socket, which is connected to instead.
    """
    proxy = None if uds else proxy_for(url)
    inner = httpx.AsyncHTTPTransport(
        verify=_ssl_context(url), limits=limits, proxy=None if proxy is None else httpx.Proxy(proxy), uds=uds
    )
    return BoundedAsyncTransport(inner, bounds)


def proxy_for(url: str) -> str | None:
    """Return the proxy that the environment names for a URL; None for this machine and where `NO_PROXY` says so."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host in {"localhost", "::1"} or host.startswith("127.") or proxy_bypass(host):
        return None
    proxies = getproxies()
    found = proxies.get(parts.scheme) or proxies.get("all")
    return found if found is None or "://" in found else f"http://{found}"


def _ssl_context(url: str) -> ssl.SSLContext:
    """Return what certificates are verified by: as httpx does it, which takes 15 ms, so only where TLS is spoken."""
    is_secure = urlsplit(url).scheme == "https"
    return httpx.create_ssl_context() if is_secure else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _read_response(status: int, headers: httpx.Headers, content: bytes) -> httpx.Response:
    """Return an answer with its content, whose length may be another than its headers say."""
    kept = [(key, value) for key, value in headers.raw if key.lower() not in {b"content-length", b"transfer-encoding"}]
    return httpx.Response(status, headers=kept, content=content)


def _is_readable(content_type: str | None) -> bool:
    kind = _media_type(content_type)
    return not kind or kind in {_EVENTS, "application/json"} or kind.endswith("+json")


def _media_type(content_type: str | None) -> str:
    return (content_type or "").partition(";")[0].strip().lower()
