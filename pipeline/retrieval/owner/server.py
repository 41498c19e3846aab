"""The owner's process: folder, socket, signals, and the flushing beside the serving."""

import asyncio
import ipaddress
import signal
import socket
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import uvicorn

from pipeline.errors import ConfigurationError, ForefillError
from pipeline.listening import Connections, GuardedServer, ListeningLimits, listening_options
from pipeline.retrieval.owner.app import PROBES, OwnerApp, refusal
from pipeline.retrieval.owner.shelf import Shelf
from pipeline.settings import MIB
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_IDLE_TIMEOUT_S = 45.0
"""Longer than our clients keep a connection, so that none sends a request on one that is being closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerOptions:
    """How the embedded engine is run."""

    data_dir: Path
    """Folder of the shards; made if it does not exist, readable by its user only."""
    api_key: str = field(repr=False)
    """What clients send as `api-key`; never empty."""
    host: str = "127.0.0.1"
    """A loopback address."""
    port: int = 6333
    """0 takes a free port; the log names it."""
    socket_path: Path | None = None
    """Listen on this Unix socket instead of a port."""
    flush_interval_s: float = 2.0
    """Seconds between flushes while anything is written: what power loss may cost."""
    max_body_bytes: int = 32 * MIB
    """Longest request body."""
    limits: ListeningLimits = field(default_factory=ListeningLimits)
    """What connections may take; how long they are kept between requests is not among it."""


def run_owner(options: OwnerOptions) -> None:
    """Own the data folder and serve it until SIGTERM or SIGINT, then flush and close it.

    Raises:
        Conflict: Another process owns the folder.
        ConfigurationError: No key, no loopback address, no free address, or a collection that cannot be loaded.
    """
    if not options.api_key:
        raise ConfigurationError("The embedded Qdrant engine needs an API key: set FOREFILL_QDRANT_API_KEY")
    with Shelf.opened(options.data_dir) as shelf, _listener(options) as listener:
        # uvicorn finishes what is being served and then raises the signal again: this makes that an orderly exit.
        signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
        signal.signal(signal.SIGINT, lambda number, _frame: sys.exit(128 + number))
        limits = replace(options.limits, idle_timeout_s=_IDLE_TIMEOUT_S)
        connections = Connections(limits, refusal=refusal, probes=[probe.encode() for probe in PROBES])
        config = uvicorn.Config(
            OwnerApp(shelf, api_key=options.api_key, max_body_bytes=options.max_body_bytes),
            **listening_options(connections),
            lifespan="off",
            timeout_graceful_shutdown=3,
        )
        server = GuardedServer(config, connections)
        _log.info("qdrant.ready", url=_url(listener), collections=len(shelf.names()))
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(server, listener, shelf, flush_interval_s=options.flush_interval_s))


async def _serve(server: uvicorn.Server, listener: socket.socket, shelf: Shelf, *, flush_interval_s: float) -> None:
    """Serve and flush side by side, in one thread; close the shards when serving ends, however it ends."""
    flushing = asyncio.create_task(_flush_forever(shelf, interval_s=flush_interval_s))
    try:
        await server.serve(sockets=[listener])
    finally:
        flushing.cancel()
        shelf.close()
        _log.info("qdrant.stopped")


async def _flush_forever(shelf: Shelf, *, interval_s: float) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            shelf.flush()
        except ForefillError:  # a full disk must not end the flushing: space may come back
            _log.exception("qdrant.flush_failed")


def _listener(options: OwnerOptions) -> socket.socket:
    """Bind before serving, so that a taken address is one clear sentence and a socket file is nobody else's."""
    if options.socket_path is not None:
        return _unix_listener(options.socket_path)
    try:
        loopback = ipaddress.ip_address("127.0.0.1" if options.host == "localhost" else options.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigurationError(f"The embedded Qdrant engine listens on loopback only, not on {options.host}")
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        return socket.create_server((options.host, options.port), family=family, backlog=512)
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {options.host}:{options.port}: {error.strerror}") from error


def _url(listener: socket.socket) -> str:
    """Return what clients connect to."""
    address = listener.getsockname()
    if isinstance(address, str):
        return f"unix://{address}"
    host, port = address[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _unix_listener(path: Path) -> socket.socket:
    """Bind a socket file that only this user can use; a stale one is replaced (the folder's lock is ours)."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(512)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"Cannot listen on {path}: {error.strerror or error}") from error
    return listener
