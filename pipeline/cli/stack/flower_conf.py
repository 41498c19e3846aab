"""Flower's `--conf` file, made from our settings: authenticated, bounded, persistent, read-only unless asked."""

import secrets
from dataclasses import dataclass
from pathlib import Path

from pipeline.cli.stack.private_files import write_private
from pipeline.errors import ConfigurationError

USER = "forefill"
"""Who logs in to the embedded stack's Flower."""

_SAVE_MS = 10_000
_MAX_TASKS = 10_000
_MAX_WORKERS = 200
_PURGE_S = 3600


@dataclass(frozen=True, slots=True)
class FlowerOptions:
    """How Flower is run."""

    folder: Path
    """Keeps its configuration and its database: pickled, so private."""
    auth_file: Path
    """One `USER:PASSWORD` a line."""
    host: str
    port: int
    writable: bool
    """Whether its buttons may revoke tasks and stop workers."""


def ensure_auth_file(path: Path) -> None:
    """Make a login once."""
    if not path.exists():
        write_private(path, f"{USER}:{secrets.token_urlsafe(24)}\n")
    path.chmod(0o600)


def write_flower_conf(options: FlowerOptions) -> Path:
    """Write the file and return its path; mode 0600, for it holds the logins.

    Raises:
        ConfigurationError: The file with logins is missing or holds none.
        OSError: The folder cannot be written.
    """
    options.folder.mkdir(mode=0o700, exist_ok=True)
    values: dict[str, object] = {
        "address": options.host,
        "port": options.port,
        "basic_auth": read_logins(options.auth_file),
        "cookie_secret": _kept_secret(options.folder / "cookie-secret"),
        "read_only": not options.writable,
        "persistent": True,
        "db": str(options.folder / "flower.db"),
        "state_save_interval": _SAVE_MS,
        "max_tasks": _MAX_TASKS,
        "max_workers": _MAX_WORKERS,
        "purge_offline_workers": _PURGE_S,
        "enable_events": True,
        "natural_time": True,
        "tasks_columns": "name,args,state,received,started,runtime,worker",
    }
    path = options.folder / "flower_conf.py"
    write_private(path, "".join(f"{name} = {value!r}\n" for name, value in values.items()))
    return path


def _kept_secret(path: Path) -> str:
    """Return what signs Flower's cookies: the same after a restart, so that nobody is logged out by one."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(48) + "\n")
    return path.read_text(encoding="utf-8").strip()


def read_logins(path: Path) -> list[str]:
    """Return the logins of a file.

    Raises:
        ConfigurationError: There is no such file, or a line is no login, or there is none.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigurationError(f"Flower's logins cannot be read from {path}: {error.strerror}") from error
    logins = [line.strip() for line in lines if line.strip()]
    if not logins or not all(user and password for user, _, password in (login.partition(":") for login in logins)):
        raise ConfigurationError(f"{path} must hold one USER:PASSWORD a line")
    return logins


def flower_arguments(conf: Path) -> list[str]:
    """Return what Python's `-m` is given to run Flower."""
    return ["workers", "flower", f"--conf={conf}"]
