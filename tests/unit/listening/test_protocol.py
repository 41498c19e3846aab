"""A guarded server under clients that send too much, too slowly, nothing, or do not read."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pipeline.listening import ListeningLimits
from pipeline.listening.limits import MAX_HEAD_BYTES, MAX_HEADERS, MAX_PIPELINED, RESERVED
from tests.support.guarded_server import PROBE, QUICK, GuardedWorld, head, serving
from tests.support.polling import eventually

BIG = 64 * 1024 * 1024
released = threading.Event()
seen: list[bytes] = []


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Echo a body's length; `/big` is an answer that no kernel buffer holds, `/held` waits, `/early` reads nothing."""
    size = 0
    if scope["path"] == "/held":
        while not released.is_set():  # noqa: ASYNC110  # set by another thread
            await asyncio.sleep(0.01)
    elif scope["path"] != "/early":
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                seen.append(b"gone")
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
    content = b"x" * BIG if scope["path"] == "/big" else b"%d" % size
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


@pytest.fixture(scope="module")
def world() -> Iterator[GuardedWorld]:
    with serving(application) as started:
        yield started


@pytest.fixture(autouse=True)
def _nothing_held(world: GuardedWorld) -> Iterator[None]:
    released.clear()
    seen.clear()
    yield
    released.set()
    eventually(lambda: len(world.connections) == 0, timeout_s=10)


def lines(size: int, *, length: int = 1000) -> list[str]:
    return [f"X-{number}: {'x' * (length - 8)}" for number in range(size // length)]


def test_a_head_within_the_limit_is_answered(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/", *lines(60_000)))
        assert client.status() == 200


@pytest.mark.parametrize(
    "sent",
    [
        head("/", "X: " + "x" * MAX_HEAD_BYTES),
        head("/", *lines(MAX_HEAD_BYTES + 1000)),
        head("/" + "x" * MAX_HEAD_BYTES),
        head("/", *[f"A{number}:" for number in range(MAX_HEADERS)]),
        b"GET / HTTP/1.1\r\nX: " + b"x" * (1024 * 1024),
    ],
    ids=["one line", "many lines", "target", "many short lines", "without end"],
)
def test_a_larger_head_is_refused_with_431(world: GuardedWorld, sent: bytes) -> None:
    with world.connect() as client:
        client.send(sent)
        answer = client.read()
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"\r\n", head()[:-2]])
def test_a_head_that_does_not_end_is_ended(world: GuardedWorld, begun: bytes) -> None:
    with world.connect() as client:
        client.send(begun)
        answer = client.read()
    assert answer == b"" if not begun else answer.startswith(b"HTTP/1.1 408 ")


def test_a_head_that_drips_is_ended(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head()[:-2])
        eventually(lambda: not client.is_open_after(b"A: b\r\n"), timeout_s=5)


@pytest.mark.parametrize("begun", [b"", b"{"])
def test_a_body_that_stands_still_is_ended_and_its_application_told(world: GuardedWorld, begun: bytes) -> None:
    with world.connect() as client:
        client.send(head("/", "Content-Length: 100", method="PUT") + begun)
        assert client.read().startswith(b"HTTP/1.1 408 ")
        eventually(lambda: seen == [b"gone"], timeout_s=5)


def test_a_body_that_drips_is_ended(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/", "Content-Length: 100000", method="PUT"))
        eventually(lambda: not client.is_open_after(b"x"), timeout_s=5)
        eventually(lambda: seen == [b"gone"], timeout_s=5)


def test_a_body_that_is_slow_but_moves_arrives(world: GuardedWorld) -> None:
    part, parts = b"x" * 4096, 6
    with world.connect() as client:
        client.send(head("/", f"Content-Length: {len(part) * parts}", method="PUT"))
        pause = threading.Event()
        for _ in range(parts):
            pause.wait(0.3)  # the link
            client.send(part)
        assert client.read().endswith(b"%d" % (len(part) * parts))


@pytest.mark.parametrize(
    "extra", [b"1;" + b"x" * 1_000_000, b"0\r\n" + b"X-T: y\r\n" * 20_000], ids=["extension", "trailers"]
)
def test_what_surrounds_a_body_is_bounded(world: GuardedWorld, extra: bytes) -> None:
    with world.connect() as client:
        client.send(head("/", "Transfer-Encoding: chunked", method="PUT") + extra)
        assert client.read().startswith(b"HTTP/1.1 431 ")


def test_trailers_are_no_headers(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/", "Transfer-Encoding: chunked", method="PUT") + b"1\r\nx\r\n0\r\nHost: other\r\n\r\n")
        assert client.status() == 200


def test_a_body_that_goes_on_after_its_answer_is_not_read_for_ever(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/early", "Content-Length: 100000000", method="PUT"))
        assert client.status() == 200
        eventually(lambda: not client.is_open_after(b"x"), timeout_s=8)


def test_a_connection_is_kept_for_the_next_request_and_no_longer_than_said(world: GuardedWorld) -> None:
    with world.connect() as client:
        for _ in range(3):
            client.send(head())
            assert client.status() == 200
        assert client.read() == b""


def test_an_answer_that_nobody_reads_is_dropped(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/big"))
        eventually(lambda: len(world.connections) == 1, timeout_s=8)
        eventually(lambda: len(world.connections) == 0, timeout_s=8)


def test_pipelined_requests_are_answered_in_their_order_and_not_without_bound(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head() * 5)
        assert client.read().count(b"HTTP/1.1 200 ") == 5
    with world.connect() as client:
        client.send(head("/held") + head() * 10_000)
        eventually(lambda: len(world.connections) == 1, timeout_s=5)
        released.set()
        assert client.read().count(b"HTTP/1.1 200 ") == MAX_PIPELINED + 1


def test_rubbish_after_a_request_does_not_cost_its_answer(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/held") + b"rubbish\r\n\r\n")
        released.set()
        assert client.read().count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("sent", [b"\x16\x03\x01 hello", b"GET / HTTP/9.9\r\n\r\n", head("\x01")])
def test_what_is_no_request_is_refused_in_the_servers_shape(world: GuardedWorld, sent: bytes) -> None:
    with world.connect() as client:
        client.send(sent)
        answer = client.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"this is no HTTP/1.1 request")


def test_an_upgrade_is_not_made(world: GuardedWorld) -> None:
    with world.connect() as client:
        client.send(head("/", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13") + b"\x81\x05")
        answer = client.read()
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("at_once", [True, False])
def test_an_offer_of_http_2_costs_no_body(world: GuardedWorld, *, at_once: bool) -> None:
    sent = head("/", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Content-Length: 5", method="POST")
    with world.connect() as client:
        for part in [sent + b"12345more"] if at_once else [sent, b"12", b"345"]:
            client.send(part)
        answer = client.read()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n5")


def test_newcomers_get_the_places_of_those_that_wait(world: GuardedWorld) -> None:
    with ExitStack() as opened:
        waiting = [opened.enter_context(world.connect()) for _ in range(QUICK.max_connections * 3)]
        for client in waiting[::2]:
            client.send(b"GET / HTTP/1.1\r\nX: ")
        assert world.ask() == 200
        assert len(world.connections) <= QUICK.max_connections
        eventually(lambda: not waiting[0].is_open(), timeout_s=5)


def test_probes_are_answered_while_all_are_busy_and_nothing_else_is(world: GuardedWorld) -> None:
    with ExitStack() as opened:
        busy = [opened.enter_context(world.connect()) for _ in range(QUICK.max_connections)]
        for client in busy:
            client.send(head("/held"))
        eventually(lambda: world.ask() == 503, timeout_s=5)
        silent = [opened.enter_context(world.connect()) for _ in range(RESERVED * 3)]
        assert world.ask(PROBE) == 200
        assert world.ask() == 503
        assert silent
        released.set()
        assert [client.status() for client in busy] == [200] * len(busy)


def test_bodies_that_stand_still_give_way() -> None:
    with serving(application, ListeningLimits(max_connections=20)) as patient, ExitStack() as opened:
        for _ in range(20):
            client = opened.enter_context(patient.connect())
            client.send(head("/", "Content-Length: 100", method="PUT") + b"{")
        eventually(lambda: patient.ask() == 200, timeout_s=10)
