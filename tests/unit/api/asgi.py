"""Requests to an ASGI application without a server."""

from collections.abc import Iterable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Headers = Iterable[tuple[str, str]]
LOCAL = ("host", "localhost:8080")


async def echo(_scope: Scope, receive: Receive, send: Send) -> None:
    """An application that answers with the length of the body it read."""
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


async def call(
    app: ASGIApp,
    *,
    method: str = "PUT",
    path: str = "/v1/stats",
    headers: Headers = (LOCAL,),
    body: Iterable[bytes] = (b"",),
) -> tuple[int, bytes, dict[str, str]]:
    """Send one request, its body in the given chunks, and return status, body and headers of the answer."""
    chunks = list(body)
    sent: list[Message] = []

    async def receive() -> Message:
        chunk = chunks.pop(0)
        return {"type": "http.request", "body": chunk, "more_body": bool(chunks)}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(request_scope(method=method, path=path, headers=headers), receive, send)
    start = sent[0]
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], b"".join(message.get("body", b"") for message in sent[1:]), answered


def request_scope(*, method: str, path: str, headers: Headers) -> dict[str, Any]:
    """Return what a server says of a request; headers go byte by character, as they come over the wire."""
    return {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers],
    }
