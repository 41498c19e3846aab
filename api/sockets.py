"""The address that several processes listen on: reserved by their parent, bound by each of them."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

from pipeline.errors import ConfigurationError


def reserve(host: str, port: int) -> tuple[int, list[socket.socket]]:
    """Take an address for processes to come, and for nobody else; return its port and what holds it.

    The sockets never listen, so no connection comes to them. While they are open nobody takes the port between the end
    of one process and the start of the next.

    Args:
        host: Name or address; empty for all interfaces.
        port: 0 takes a free one.

    Raises:
        ConfigurationError: Somebody listens there already, or the host is not this machine's.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ConfigurationError("FOREFILL_API_PROCESSES: this system lets no more than one process listen on a port")
    for alone in bind(host, port, shared=False):  # refused where another one listens, even if it would share
        alone.close()
    held = bind(host, port, shared=True)
    return int(held[0].getsockname()[1]), held


def bind(host: str, port: int, *, shared: bool) -> list[socket.socket]:
    """Return a bound socket for each address of a host, all on one port.

    Args:
        host: Name or address; empty for all interfaces.
        port: 0 takes a free one.
        shared: Whether others may listen there, too, and get their part of the connections.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    with ExitStack() as opened:
        bound: list[socket.socket] = []
        try:
            for family, address in _addresses(host, port):
                each = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if shared:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                each.bind((address, port))
                port = int(each.getsockname()[1])
                bound.append(each)
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host or '*'}:{port}: {error.strerror or error}") from error
        opened.pop_all()
        return bound


def _addresses(host: str, port: int) -> Iterator[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return iter(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))
