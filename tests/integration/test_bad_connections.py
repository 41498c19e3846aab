"""Both of our servers beside clients without a key that send too much, too little, or nothing."""

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import psutil
import pytest

from tests.support.guarded_server import Client, head
from tests.support.lonely_api import LonelyApi
from tests.support.ports import LOOPBACK, NO_TLS
from tests.support.processes import Process, Processes
from tests.support.qdrant import QdrantOwner

MIB = 1024 * 1024


class Server:
    """A server of ours as a process."""

    def __init__(self, process: Process, port: int, *, in_shape: str) -> None:
        self.process = process
        self.port = port
        self.in_shape = in_shape
        """What every refusal's body holds."""

    def connect(self) -> Client:
        return Client(socket.create_connection((LOOPBACK, self.port), timeout=30.0))

    def refusal(self, sent: bytes) -> str:
        """Send something, and return all of what is answered until the connection is closed."""
        with self.connect() as client:
            client.send(sent)
            answer = client.read().decode()
        assert self.in_shape in answer
        return answer

    def rss_mib(self) -> float:
        return float(psutil.Process(self.process.pid).memory_info().rss / MIB)

    def ask_ms(self, client: httpx.Client) -> float:
        began = time.perf_counter()
        assert client.get("/healthz").status_code == 200
        return (time.perf_counter() - began) * 1000


@pytest.fixture(scope="module", params=["api", "qdrant"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    quick = {"FOREFILL_REQUEST_HEAD_TIMEOUT_S": "1.5", "FOREFILL_REQUEST_BODY_TIMEOUT_S": "1.5"}
    with Processes(folder) as processes:
        if request.param == "api":
            api = LonelyApi(processes, folder)
            yield Server(api.start(**quick), api.port, in_shape='"type":"urn:forefill:problem:')
        else:
            owner = QdrantOwner(processes, folder / "qdrant").start(**quick)
            yield Server(owner.process, owner.port, in_shape='{"status":{"error":"')


def test_refusals_have_the_servers_own_shape(server: Server) -> None:
    assert server.refusal(head("/", "X: " + "x" * 70_000)).startswith("HTTP/1.1 431 ")
    assert server.refusal(b"GET / HTTP/1.1\r\nHost: localhost\r\n").startswith("HTTP/1.1 408 ")
    assert server.refusal(b"no request at all\r\n\r\n").startswith("HTTP/1.1 400 ")


def test_a_hundred_mib_of_headers_take_no_memory(server: Server) -> None:
    with httpx.Client(base_url=f"http://{LOOPBACK}:{server.port}", verify=NO_TLS) as good:
        server.ask_ms(good)
        before = server.rss_mib()
        for line in (b"x" * 65_536, b"X-Header: some value\r\n" * 3_000):
            sent = 0
            while sent < 50 * MIB:
                with server.connect() as client:
                    client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")
                    with suppress(OSError):
                        for _ in range(80):
                            client.socket.sendall(line)
                            sent += len(line)
        server.ask_ms(good)
    assert server.rss_mib() - before < 25


@pytest.mark.long
def test_two_hundred_bad_connections_keep_nobody_waiting(server: Server) -> None:
    """Each is opened again as soon as it was closed."""
    begun = [
        b"",
        b"GET / HTTP/1.1\r\nX: ",
        head("/", "Content-Length: 100", method="PUT") + b"{",
        b"GET / HTTP/1.1\r\nX: " + b"x" * MIB,
    ]
    over = threading.Event()

    def hold(kind: int) -> None:
        with ExitStack() as opened:
            clients = [opened.enter_context(server.connect()) for _ in range(50)]
            while not over.wait(0.2):
                for place, client in enumerate(clients):
                    client.send(begun[kind] if kind != 1 else b"x")
                    if not client.is_open():
                        client.socket.close()
                        clients[place] = opened.enter_context(server.connect())

    with httpx.Client(base_url=f"http://{LOOPBACK}:{server.port}", verify=NO_TLS, timeout=30.0) as good:
        alone = statistics.median(server.ask_ms(good) for _ in range(200))
        threads = [threading.Thread(target=hold, args=(kind,)) for kind in range(len(begun))]
        for thread in threads:
            thread.start()
        try:
            beside = [server.ask_ms(good) for _ in range(200)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert statistics.median(beside) < 10 * alone + 50
    assert max(beside) < 5_000
