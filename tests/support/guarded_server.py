"""A guarded server in a thread of this process, around an application that a test chooses."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any

import uvicorn

from pipeline.listening import Connections, GuardedServer, ListeningLimits, Refusal, listening_options
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK

PROBE = "/healthz"

QUICK = ListeningLimits(max_connections=20, head_timeout_s=0.6, body_timeout_s=0.6, idle_timeout_s=0.6)


class GuardedWorld:
    """Where it listens, and what it holds."""

    def __init__(self, port: int, connections: Connections) -> None:
        self.port = port
        self.connections = connections

    def connect(self) -> "Client":
        """Open a connection."""
        return Client(socket.create_connection((LOOPBACK, self.port), timeout=10.0))

    def ask(self, path: str = "/", *, method: str = "GET") -> int:
        """Send a request on a connection of its own; return the answer's status."""
        with self.connect() as client:
            client.send(head(path, method=method))
            return client.status()


class Client:
    """A connection that sends whatever a test wants."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send, as far as the server takes it."""
        with suppress(ConnectionError):
            self.socket.sendall(data)

    def is_open_after(self, data: bytes) -> bool:
        """Send, and return whether the server has not closed it."""
        self.send(data)
        return self.is_open()

    def read(self) -> bytes:
        """Return everything until the server closes; empty if it just did."""
        parts = []
        with suppress(ConnectionError):
            while part := self.socket.recv(65_536):
                parts.append(part)
        return b"".join(parts)

    def status(self) -> int:
        """Return the status of the next answer; 0 if none came."""
        with suppress(ConnectionError):
            line = self.socket.recv(65_536).split(b" ", 2)
            return int(line[1]) if len(line) > 1 else 0
        return 0

    def is_open(self) -> bool:
        """Whether the server has not closed it; what it sent is dropped."""
        self.socket.settimeout(0.0)
        try:
            return bool(self.socket.recv(65_536))
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        finally:
            self.socket.settimeout(10.0)


def head(path: str = "/", *lines: str, method: str = "GET") -> bytes:
    """Return a request's head."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


@contextmanager
def serving(app: Any, limits: ListeningLimits = QUICK) -> Iterator[GuardedWorld]:
    """Serve an application, and stop."""
    connections = Connections(limits, refusal=_refusal, probes=[PROBE.encode()])
    config = uvicorn.Config(app, lifespan="off", timeout_graceful_shutdown=1, **listening_options(connections))
    server = GuardedServer(config, connections)
    with socket.create_server((LOOPBACK, 0), backlog=512) as listener:
        loop = config.get_loop_factory()
        thread = threading.Thread(target=lambda: _run(server, listener, loop))
        thread.start()
        try:
            eventually(lambda: server.started, timeout_s=10)
            yield GuardedWorld(listener.getsockname()[1], connections)
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def _run(server: uvicorn.Server, listener: socket.socket, loop_factory: Any) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(server.serve(sockets=[listener]))


def _refusal(status: HTTPStatus, detail: str) -> Refusal:
    return Refusal(b"text/plain", f"{status.phrase}: {detail}".encode())
