"""One serving process: alone (`serve`), or one of several on a port (`python -m api.serving PULSE_FD`).

One of several listens on a socket of its own with SO_REUSEPORT, so that the kernel deals connections out evenly and
stops as soon as the process is gone. It writes a byte to its parent's pipe every second while its event loop runs: that
it serves, that it still does, and that the parent is there all come from that.
"""

import gc
import os
import signal
import socket
import sys
from http import HTTPStatus
from typing import Any

from pipeline.loading import collector_at_rest

with collector_at_rest():
    import uvicorn
    from fastapi import FastAPI

    from api.app import create_app
    from api.errors import problem
    from api.sockets import bind
    from api.starting import require_startable
    from pipeline.errors import ForefillError
    from pipeline.listening import Connections, GuardedServer, Refusal, limits_of, listening_options
    from pipeline.settings import Settings, load_settings
    from pipeline.telemetry.logs import configure_logging

GRACE_S = 3
"""Seconds that answers under way may take after SIGTERM."""

_BACKLOG = 2048
_PROBES = (b"/healthz", b"/readyz")
_TICKS_PER_PULSE = 10
_NOT_STARTED = 3
"""What uvicorn ends with when the application does not start; why is in the log."""


def serve(settings: Settings) -> None:
    """Serve alone until SIGTERM or Ctrl-C."""
    serve_app(create_app(settings), settings)


def serve_app(app: FastAPI, settings: Settings) -> None:
    """Serve an application until SIGTERM or Ctrl-C.

    Raises:
        SystemExit: It did not start, or cannot listen; the log says why.
    """
    connections = _connections(settings)
    config = uvicorn.Config(app, host=settings.api_host, port=settings.api_port, **_options(connections))
    server = _Server(config, connections)
    server.run()
    if not server.started:
        sys.exit(_NOT_STARTED)


def serve_beside(settings: Settings, pulse: int) -> int:
    """Serve until SIGTERM, or until the parent is gone; return the exit code.

    Args:
        settings: Say the port, which is none that the system chooses.
        pulse: The pipe's end to write to.

    Raises:
        ConfigurationError: It must not begin, or cannot listen.
    """
    require_startable(settings)
    sockets = bind(settings.api_host, settings.api_port, shared=True)
    connections = _connections(settings)
    server = _PulsingServer(uvicorn.Config(create_app(settings), **_options(connections)), connections, pulse)
    server.run(sockets=sockets)
    return 0 if server.started else _NOT_STARTED


def _connections(settings: Settings) -> Connections:
    return Connections(limits_of(settings), refusal=_refusal, probes=_PROBES)


def _refusal(status: HTTPStatus, detail: str) -> Refusal:
    answer = problem(status, detail)
    return Refusal(answer.headers["content-type"].encode(), bytes(answer.body))


def _options(connections: Connections) -> dict[str, Any]:
    return {
        **listening_options(connections),
        "loop": "uvloop",
        "backlog": _BACKLOG,
        "timeout_graceful_shutdown": GRACE_S,
    }


class _Server(GuardedServer):
    """Leaves what was made until it serves out of all later garbage collections."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then freeze: 250,000 objects that stay took 0.15 s to look through, every second under load."""
        await super().startup(sockets)
        gc.collect()
        gc.freeze()


class _PulsingServer(_Server):
    """Tells a parent that it serves."""

    def __init__(self, config: uvicorn.Config, connections: Connections, pulse: int) -> None:
        super().__init__(config, connections)
        self._pulse = pulse
        os.set_blocking(pulse, False)

    async def on_tick(self, counter: int) -> bool:
        """Write a byte every second, and end when nobody is left to read it."""
        if counter % _TICKS_PER_PULSE == 0:
            try:
                os.write(self._pulse, b".")
            except BlockingIOError:
                pass  # the parent is paused, and its pipe full
            except BrokenPipeError:
                return True
        return await super().on_tick(counter)


def main(pulse: str) -> int:
    """Run the process; return its exit code."""
    # uvicorn raises the signal that stopped it again, once it has stopped: by then there is nothing left to end.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        settings = load_settings()
        configure_logging(settings.log_level)
        return serve_beside(settings, int(pulse))
    except ForefillError as error:
        print(f"forefill api: {error}", file=sys.stderr)  # noqa: T201  # a command's own message
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
