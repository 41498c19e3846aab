"""One serving process: alone (`serve`), or one of several on a port (`python -m api.serving PULSE_FD`).

One of several listens on a socket of its own with SO_REUSEPORT, so that the kernel deals connections out evenly and
stops as soon as the process is gone. It writes a byte to its parent's pipe every second while its event loop runs: that
it serves, that it still does, and that the parent is there all come from that.
"""

from pipeline.ending import end_at_once

if __name__ == "__main__":
    end_at_once()

import gc  # whatever is loaded, even this, after the line above
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from types import FrameType
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
    from pipeline.telemetry.logs import start_logging

GRACE_S = 3
"""Seconds that answers under way may take after SIGTERM."""

_BACKLOG = 2048
_PROBES = (b"/healthz", b"/readyz")
_TICKS_PER_PULSE = 10
_NOT_STARTED = 3
"""What uvicorn ends with when the application does not start; why is in the log."""


def serve(settings: Settings) -> int:
    """Serve alone until SIGTERM or Ctrl-C; return the exit code."""
    return serve_app(create_app(settings), settings)


def serve_app(app: FastAPI, settings: Settings) -> int:
    """Serve an application until SIGTERM or Ctrl-C; return the exit code, whose reason the log tells."""
    connections = _connections(settings)
    config = uvicorn.Config(app, host=settings.api_host, port=settings.api_port, **_options(connections))
    server = _Server(config, connections)
    server.run()
    return server.exit_code


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
    return server.exit_code


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
    """Obeys signals from first to last, and leaves what was made until it serves out of later garbage collections."""

    _interrupted = False

    @property
    def exit_code(self) -> int:
        """What the process ends with."""
        if not self.started:
            return _NOT_STARTED
        return 128 + signal.SIGINT if self._interrupted else 0

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Finish what is being answered after SIGTERM and Ctrl-C; unlike uvicorn's, do not raise them once more."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.handle_exit)
        try:
            yield
        finally:
            end_at_once()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn's. Before it serves nothing has to be finished, and whatever it waits for may take long."""
        if not self.started:
            end_at_once()
            signal.raise_signal(sig)
        self._interrupted = self._interrupted or sig == signal.SIGINT
        super().handle_exit(sig, frame)

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
    try:
        settings = load_settings()
        start_logging("api", level=settings.log_level)
        return serve_beside(settings, int(pulse))
    except ForefillError as error:
        print(f"forefill api: {error}", file=sys.stderr)  # noqa: T201  # a command's own message
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
