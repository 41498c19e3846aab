"""One connection: uvicorn's protocol, which counts what comes, and remembers since when it waits for what."""

import asyncio
from enum import Enum
from http import HTTPStatus
from typing import Any

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from pipeline.listening.connections import Connections
from pipeline.listening.limits import (
    LINGER_BYTES,
    LINGER_S,
    MAX_HEAD_BYTES,
    MAX_HEADERS,
    MAX_PIPELINED,
    MIN_BODY_BYTES_PER_S,
    SLICE_BYTES,
    SLOW_AFTER_S,
)
from pipeline.listening.unread import Unread

_HEADER_OVERHEAD = 4  # `: ` and the end of the line


class _Awaited(Enum):
    """What of a request is still to come."""

    NOTHING = "nothing has come of the next request"
    HEAD = "a head has begun, or the connection is new"
    BODY = "a head has come, and not all of its body"


class _RefusedError(Exception):
    """Leaves httptools' callbacks; the parser is not used again."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class GuardedProtocol(HttpToolsProtocol):
    """A connection that is refused what is over the limits, and ended when it makes us wait too long.

    Bytes that the parser keeps to itself (a head, a chunk's extension, trailers) are counted since the last ones that
    it handed over, slice by slice. What uvicorn's own class does with requests and answers stays as it is.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.probes_only = False
        """Whether it is a reserved connection: one answer, to a probe or 503."""
        self._connections = connections
        self._application = self.app
        self._is_new = True
        self._awaited = _Awaited.HEAD
        self._since = self._moved = connections.clock
        self._unread = Unread(connections.limits.body_timeout_s)
        self._kept_by_parser = 0
        self._head_bytes = self._headers = self._body_bytes = 0
        self._raw_body_bytes = 0  # still to come of a body that the parser takes for another protocol
        self._deaf = False
        self._dropped = 0
        self._lingers_since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin, or say that there is no room."""
        super().connection_made(transport)
        if not self._connections.admit(self):
            self._deaf = True
            self._write_refusal(HTTPStatus.SERVICE_UNAVAILABLE, "all connections are taken")
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connections.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, in slices."""
        self._unset_keepalive_if_required()
        self._is_new = False
        if self._awaited is _Awaited.NOTHING and not self._is_answering:
            self._awaited, self._since = _Awaited.HEAD, self._connections.clock
        if len(data) <= SLICE_BYTES:
            self._take(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            self._take(view[start : start + SLICE_BYTES])

    def _take(self, piece: bytes | memoryview) -> None:
        if self._deaf or self.parser is None:
            self._drop(len(piece))
            return
        if self._raw_body_bytes:
            self._take_raw_body(piece)
            return
        self._kept_by_parser += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay_with_http(piece[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, _RefusedError):
                self._refuse(cause.status, cause.detail)
            else:
                self._refuse(HTTPStatus.BAD_REQUEST, "this is no HTTP/1.1 request")
        else:
            if self._kept_by_parser > MAX_HEAD_BYTES:
                self._refuse(*_TOO_LONG)

    def _stay_with_http(self, rest: bytes | memoryview) -> None:
        """Answer a request that offers another protocol as if it did not, and nothing after it.

        The parser takes what follows its head for that protocol. It is the body, if the request has one: Java's client
        offers HTTP/2 with every first request.
        """
        stated = dict(self.headers).get(b"content-length", b"")
        self._raw_body_bytes = int(stated) if stated.isdigit() else 0
        if not self._raw_body_bytes:
            self._end_after_answer()
            return
        self._awaited, self.cycle.more_body = _Awaited.BODY, True
        self._take_raw_body(rest)

    def _take_raw_body(self, piece: bytes | memoryview) -> None:
        body = bytes(piece[: self._raw_body_bytes])
        self._raw_body_bytes -= len(body)
        if body:
            self.on_body(body)
        if not self._raw_body_bytes:
            self.on_message_complete()
            self._end_after_answer()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._awaited = _Awaited.HEAD
        self._kept_by_parser = self._head_bytes = self._headers = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the target."""
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers come when the headers were acted upon, and are not looked at."""
        self._headers += 1
        if self._headers > MAX_HEADERS:
            raise _RefusedError(
                HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request may have {MAX_HEADERS} header lines"
            )
        self._count_head(len(name) + len(value) + _HEADER_OVERHEAD)
        if self._awaited is _Awaited.HEAD:
            super().on_header(name, value)

    def _count_head(self, size_bytes: int) -> None:
        self._head_bytes += size_bytes
        if self._head_bytes > MAX_HEAD_BYTES:
            raise _RefusedError(*_TOO_LONG)

    def on_headers_complete(self) -> None:
        """Have the request answered."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS, "too many requests were sent before their answers")
        self._awaited = _Awaited.BODY
        self._since = self._moved = self._connections.clock
        self._kept_by_parser = self._body_bytes = 0
        self._connections.has_asked(self)
        is_refused = self.probes_only and self.url.partition(b"?")[0] not in self._connections.probes
        self.app = self._no_room if is_refused else self._application
        super().on_headers_complete()
        if self.probes_only:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._kept_by_parser = 0
        self._body_bytes += len(body)
        self._moved = self._connections.clock
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._awaited, self._since, self._kept_by_parser = _Awaited.NOTHING, self._connections.clock, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """End an answer."""
        super().on_response_complete()
        self._since = self._connections.clock
        if not self._is_answering:
            self._connections.owes_request(self)

    # What `Connections` calls

    def look(self) -> None:
        """End it if its time is over."""
        clock, limits = self._connections.clock, self._connections.limits
        if self._lingers_since is not None:
            if clock - self._lingers_since > LINGER_S:
                self.end()
        elif self._unread.is_over(self.transport.get_write_buffer_size(), clock=clock, ended=not self._is_answering):
            self._connections.count("unread_answer")
            self.end()
        elif self._is_answering and not self._takes_body:
            self._since = self._moved = clock  # the next step is ours
        elif self._awaited is _Awaited.HEAD and clock - self._since > limits.head_timeout_s:
            self._refuse_head()
        elif self._awaited is _Awaited.BODY:
            self._look_at_body()

    def _look_at_body(self) -> None:
        clock, limit = self._connections.clock, self._connections.limits.body_timeout_s
        if not self._is_answering:  # the answer came before the body's end
            if clock - self._since > LINGER_S:
                self.end()
        elif self.flow.read_paused:
            self._since = self._moved = clock
            self._body_bytes = 0
        elif clock - self._moved > limit:
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"nothing came of the body for over {limit:g} s")
        elif clock - self._since > limit + self._body_bytes / MIN_BODY_BYTES_PER_S:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT, f"the body came at less than {MIN_BODY_BYTES_PER_S:,} bytes a second"
            )

    def is_slow(self) -> bool:
        """Return whether it sends a body so slowly that a newcomer may have its place."""
        took_s = self._connections.clock - self._since
        return self._takes_body and took_s > max(SLOW_AFTER_S, self._body_bytes / MIN_BODY_BYTES_PER_S)

    def end(self) -> None:
        """End it now, whatever was not sent yet."""
        self._deaf = True
        self._connections.forget(self)
        self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete  # type: ignore[redundant-expr]  # None at first

    @property
    def _takes_body(self) -> bool:
        """Whether a body is being read for the request that is being answered."""
        return self._is_answering and self._awaited is _Awaited.BODY and not self.pipeline

    # Refusing

    def _refuse_head(self) -> None:
        if self._is_new:  # somebody connected ahead of time: there is nothing to answer
            self._connections.count("silent")
            self.end()
        else:
            limit = self._connections.limits.head_timeout_s
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head took over {limit:g} s")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answer, if the answer is to what is refused, and end; answers to earlier requests are finished first."""
        self._connections.count(status.phrase.lower().replace(" ", "_"))
        if self._takes_body:
            if self.cycle.response_started:
                self.end()
                return
            self.cycle.disconnected = True  # the application gets no more of it, and its answer goes nowhere
            self.cycle.message_event.set()
        elif self._is_answering:
            self._end_after_answer()
            return
        elif self._awaited is _Awaited.BODY:  # was answered before
            self.end()
            return
        self._write_refusal(status, detail)
        self._linger()

    def _end_after_answer(self) -> None:
        self._deaf = True
        self.cycle.keep_alive = False

    def _linger(self) -> None:
        """End our side; read on for a moment, so that a client that is still sending sees the answer."""
        self._deaf = True
        self._lingers_since = self._connections.clock
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self.transport.write_eof()

    def _drop(self, size_bytes: int) -> None:
        self._dropped += size_bytes
        if self._dropped > LINGER_BYTES:
            self.end()

    def _write_refusal(self, status: HTTPStatus, detail: str) -> None:
        refusal = self._connections.refusal(status, detail)
        headers = [*self.server_state.default_headers, *_headers(status, refusal.media_type, len(refusal.content))]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + refusal.content)

    async def _no_room(self, _scope: Any, _receive: Any, send: Any) -> None:
        """Answer a request on a reserved connection. An ASGI application."""
        status = HTTPStatus.SERVICE_UNAVAILABLE
        refusal = self._connections.refusal(status, "all connections are taken")
        headers = _headers(status, refusal.media_type, len(refusal.content))
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": refusal.content})


_TOO_LONG = (HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"a request's head may have {MAX_HEAD_BYTES:,} bytes")


def _headers(status: HTTPStatus, media_type: bytes, length: int) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", media_type), (b"content-length", b"%d" % length), (b"connection", b"close")]
    return [*headers, (b"retry-after", b"1")] if status is HTTPStatus.SERVICE_UNAVAILABLE else headers
