"""The link hands on what it is given, when it is told to."""

import socket
from pathlib import Path

import pytest

from tests.campaign.link import Link
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK


def test_a_silent_link_keeps_what_it_is_given_and_a_broken_one_ends(tmp_path: Path) -> None:
    path = tmp_path / "server"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with Link(path) as link, socket.create_connection((LOOPBACK, link.port), timeout=5) as client:
            there, _ = server.accept()
            with there:
                client.sendall(b"one")
                assert there.recv(10) == b"one"
                link.silence()
                client.sendall(b"two")
                there.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    there.recv(10)
                link.speak()
                there.settimeout(5)
                assert there.recv(10) == b"two"
                link.cut()
                assert eventually(lambda: _has_ended(client), describe="the end of the connection")


def _has_ended(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True
