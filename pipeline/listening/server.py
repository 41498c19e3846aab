"""The server: uvicorn's, whose ticks also let the connections' clock go on."""

import socket
import time
from functools import partial
from typing import Any

import uvicorn

from pipeline.listening.connections import Connections
from pipeline.listening.descriptors import have_descriptors
from pipeline.listening.limits import RESERVED
from pipeline.listening.protocol import GuardedProtocol

_OWN_DESCRIPTORS = 256
"""For what a process opens beside: stores, files, other processes."""


def listening_options(connections: Connections) -> dict[str, Any]:
    """Return what `uvicorn.Config` takes for a guarded server.

    Args:
        connections: Of this server, and of no other one.
    """
    return {
        "http": partial(GuardedProtocol, connections=connections),
        "ws": "none",
        "timeout_keep_alive": connections.limits.idle_timeout_s,
        "log_config": None,  # structured logs are configured already
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,  # a forwarded address must not decide what is local
    }


class GuardedServer(uvicorn.Server):
    """A server whose connections are bounded.

    Args:
        config: Made with `listening_options`.
        connections: The same.
    """

    def __init__(self, config: uvicorn.Config, connections: Connections) -> None:
        super().__init__(config)
        self._connections = connections

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, with as many file descriptors as the connections may take."""
        have_descriptors(self._connections.limits.max_connections + RESERVED + _OWN_DESCRIPTORS)
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Look at the connections."""
        self._connections.tick(time.monotonic())
        return await super().on_tick(counter)
