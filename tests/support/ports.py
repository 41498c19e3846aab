"""Loopback ports for servers that tests start."""

import socket
import ssl

LOOPBACK = "127.0.0.1"

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `verify` of requests to this machine in a loop: httpx reads every authority's certificate for each, 15 ms."""


def free_port() -> int:
    """Return a TCP port on loopback that nobody listens on right now.

    Another process may take it before it is used, so whoever starts a server tries again on failure.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    """Whether a TCP connection to that loopback port is accepted."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((LOOPBACK, port)) == 0
