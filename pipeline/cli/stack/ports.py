"""Loopback ports: taken once, kept over restarts."""

import random
import socket
import time

from pipeline.errors import ConfigurationError

LOOPBACK = "127.0.0.1"

_CHOICE = range(20_000, 32_768)
"""Below the ports that systems lend to outgoing connections: a client that knocks while a server restarts could
otherwise be lent the very port it knocks at, talk to itself, and keep the server out."""
_PATIENCE_S = 2.0
_LOOK_S = 0.05


def is_free(port: int, *, patience_s: float = _PATIENCE_S) -> bool:
    """Return whether a port can be listened on, perhaps after its dying owner has let go of it."""
    until = time.monotonic() + patience_s
    while not _can_bind(port):
        if time.monotonic() >= until:
            return False
        time.sleep(_LOOK_S)
    return True


def require_free(port: int, *, purpose: str, option: str, taken: frozenset[int] = frozenset()) -> int:
    """Return a port that the user chose, or a free one for 0.

    Raises:
        ConfigurationError: Somebody listens on it, or it was asked for twice.
    """
    if port == 0:
        return free_port(taken=taken)
    if port in taken or not is_free(port):
        raise ConfigurationError(f"port {port} for {purpose} is taken: choose another one with {option}")
    return port


def free_port(*, taken: frozenset[int]) -> int:
    """Return a port that nobody listens on and that is not promised to another service."""
    while True:
        port = random.choice(_CHOICE)
        if port not in taken and _can_bind(port):
            return port


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
