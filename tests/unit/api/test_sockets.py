"""A port for several processes: theirs alone, and never without its holder."""

import socket
from contextlib import closing

import pytest

from api.sockets import bind, reserve
from pipeline.errors import ConfigurationError

HOST = "127.0.0.1"


def close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def test_a_reserved_port_is_shared_by_those_who_know_it() -> None:
    port, held = reserve(HOST, 0)
    first, second = (bind(HOST, port, shared=True) for _ in range(2))
    for each in (*first, *second):
        each.listen()
    close_all([*first, *second, *held])


def test_nobody_is_sent_to_what_only_reserves_it() -> None:
    port, held = reserve(HOST, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=5)
    close_all(held)


@pytest.mark.parametrize("shared", [True, False])
def test_a_port_that_somebody_serves_is_not_to_be_had(*, shared: bool) -> None:
    (served,) = bind(HOST, 0, shared=shared)
    with closing(served):
        served.listen()
        port = served.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"cannot listen on {HOST}:{port}"):
            reserve(HOST, port)


def test_all_addresses_of_a_host_have_one_port() -> None:
    bound = bind("localhost", 0, shared=True)
    assert len({each.getsockname()[1] for each in bound}) == 1
    close_all(bound)


def test_a_host_that_is_not_ours_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"cannot listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0, shared=False)
