"""Several processes that serve the API on one port, and the parent that keeps them: it serves nothing itself.

One that crashes, or whose event loop stands still, is started again; its share of new connections goes to the others
meanwhile. One that refuses to start has said why, and that ends all of them with its exit code: what keeps it from
starting would keep every other one. None outlives the parent.
"""

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from api.server_process import ServerProcess
from api.sockets import reserve
from pipeline.cli.stack.serving_pids import write_serving_pids
from pipeline.cli.stack.silence import OwnTicks
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import FOLDER_VARIABLE, shared_folder

_log = get_logger(__name__)

_TICK_S = 0.05
_COUNT_S = 2.0
"""Longer than from pulse to pulse: of a process in order nothing is read."""
_END_S = 5.0
"""Longer than the grace of answers under way and what closes after them; shorter than supervisors wait."""


def serve_with_several(settings: Settings) -> int:
    """Serve with as many processes as the settings say until SIGTERM or Ctrl-C; return the exit code.

    Raises:
        ConfigurationError: The port cannot be had.
    """
    stop = threading.Event()
    with _stopped_by_signals(stop) as signals, _counts_folder() as folder:
        port, held = reserve(settings.api_host, settings.api_port)
        environment = {**os.environ, "FOREFILL_API_PORT": str(port), FOLDER_VARIABLE: str(folder)}
        servers = [ServerProcess(environment) for _ in range(settings.api_processes)]
        try:
            code = _keep(servers, folder, stop)
        finally:
            _end(servers)
            for each in held:
                each.close()
    return 130 if signal.SIGINT in signals else code


def _keep(servers: list[ServerProcess], folder: Path, stop: threading.Event) -> int:
    """Start all, and again what ends, until told to stop or one cannot start; return the exit code."""
    said: list[int] | None = None
    for server in servers:
        server.start()
    ticks, passed_s = OwnTicks(_TICK_S), 0.0
    while not stop.wait(_TICK_S):
        passed_s += ticks.tick()
        if passed_s >= _COUNT_S:
            for server in servers:
                server.count(passed_s)
            passed_s = 0.0
        for server in servers:
            refused = server.tend()
            if refused is not None:
                return refused
        serving = [server.pid for server in servers if server.serves]
        if serving != said:
            write_serving_pids(folder, serving)
            _log.info("api.serving", pids=serving, processes=len(servers))
            said = serving
    return 0


def _end(servers: list[ServerProcess]) -> None:
    for server in servers:
        server.terminate()
    deadline = time.monotonic() + _END_S
    for server in servers:
        server.stop_before(deadline)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[list[int]]:
    """Set an event when a signal asks for an end, for the life of a `with` block; return which came."""
    came: list[int] = []

    def note(number: int, _frame: object) -> None:
        came.append(number)
        stop.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _counts_folder() -> Iterator[Path]:
    """Return the folder of the processes' counts: the one that a supervisor gives, else one for this time."""
    given = shared_folder()
    if given is not None:
        yield given
        return
    made = Path(tempfile.mkdtemp(prefix="forefill-metrics-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
