"""`forefill.env`: where everything is and what opens it, made once and kept.

Secrets never change. A port changes only when somebody else took it meanwhile. Lines that a user added stay.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import make_url

from pipeline.cli.stack.ports import LOOPBACK, free_port, is_free, require_free
from pipeline.cli.stack.private_files import write_private
from pipeline.errors import ConfigurationError
from pipeline.settings import ENVIRONMENT_FILE

_PREFIX = "FOREFILL_"
_OWN_DATABASE = "forefill.db"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What is decided already."""

    database_url: str
    api_port: int
    """0 takes a free one."""
    flower_port: int | None = None
    """None: the one of last time, or a free one."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """Addresses and secrets of one stack."""

    folder: Path
    variables: Mapping[str, str]
    """What every process gets, by full name (`FOREFILL_…`)."""
    broker_port: int
    cache_port: int
    qdrant_port: int
    api_port: int
    flower_port: int
    interactive_metrics_port: int
    bulk_metrics_port: int

    @property
    def broker_password(self) -> str:
        """Secret of the broker."""
        return _password(self.variables["FOREFILL_BROKER_URL"])

    @property
    def cache_password(self) -> str:
        """Secret of the cache."""
        return _password(self.variables["FOREFILL_CACHE_URL"])


def prepare_settings(folder: Path, old: Mapping[str, str], wishes: Wishes) -> StackSettings:
    """Complete what the folder's file says, and write it if anything changed.

    Args:
        folder: The data directory.
        old: What its file says, nothing if there is none.
        wishes: What must be.

    Raises:
        ConfigurationError: A port that was asked for is taken.
        OSError: The file cannot be read or written.
    """
    path = folder / ENVIRONMENT_FILE
    ports = {"API": require_free(wishes.api_port, purpose="the API", option="--port")}
    if wishes.flower_port is not None:
        taken = frozenset(ports.values())
        ports["FLOWER"] = require_free(wishes.flower_port, purpose="Flower", option="--flower-port", taken=taken)
    for name in ("BROKER", "CACHE", "QDRANT", "FLOWER", "INTERACTIVE_METRICS", "BULK_METRICS"):
        ports.setdefault(name, _choose(name, old, frozenset(ports.values())))
    variables = {**old, **_complete(folder, old, ports), "FOREFILL_DATABASE_URL": wishes.database_url}
    if variables != old:
        write_private(path, _render(variables))
    path.chmod(0o600)
    return StackSettings(folder, variables, **{f"{name.lower()}_port": port for name, port in ports.items()})


def read_variables(folder: Path) -> dict[str, str]:
    """Return the variables of a folder's file, none if there is no file.

    Raises:
        OSError: It cannot be read.
    """
    path = folder / ENVIRONMENT_FILE
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("'") for name, _, value in pairs}


def _choose(name: str, old: Mapping[str, str], taken: frozenset[int]) -> int:
    """Return the port of last time if it is free, else another one."""
    port = old.get(f"{_PREFIX}{name}_PORT") or urlsplit(old.get(f"{_PREFIX}{name}_URL", "")).port
    if port and int(port) not in taken and is_free(int(port)):
        return int(port)
    return free_port(taken=taken)


def _complete(folder: Path, old: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    return {
        "FOREFILL_BROKER_URL": _redis_url(old.get("FOREFILL_BROKER_URL"), ports["BROKER"]),
        "FOREFILL_CACHE_URL": _redis_url(old.get("FOREFILL_CACHE_URL"), ports["CACHE"]),
        "FOREFILL_QDRANT_URL": f"http://{LOOPBACK}:{ports['QDRANT']}",
        "FOREFILL_QDRANT_API_KEY": old.get("FOREFILL_QDRANT_API_KEY") or _secret(),
        "FOREFILL_QDRANT_DATA_DIR": str(folder / "qdrant"),
        "FOREFILL_ENTRY_HMAC_KEY": old.get("FOREFILL_ENTRY_HMAC_KEY") or _secret(),
        "FOREFILL_SNAPSHOT_PATH": str(folder / "api-snapshot.json"),
        "FOREFILL_API_HOST": LOOPBACK,
        "FOREFILL_API_PORT": str(ports["API"]),
        "FOREFILL_FLOWER_PORT": str(ports["FLOWER"]),
        "FOREFILL_INTERACTIVE_METRICS_PORT": str(ports["INTERACTIVE_METRICS"]),
        "FOREFILL_BULK_METRICS_PORT": str(ports["BULK_METRICS"]),
    }


def choose_database(folder: Path, old: Mapping[str, str], *, given: str | None) -> str:
    """Return the URL that the environment gives, else the one of last time; the folder's own moves with the folder."""
    if given:
        return absolute_url(given)
    known = old.get("FOREFILL_DATABASE_URL", "")
    is_own = not known or (known.startswith("sqlite:") and known.endswith(f"/{_OWN_DATABASE}"))
    return f"sqlite:///{folder / _OWN_DATABASE}" if is_own else known


def absolute_url(database_url: str) -> str:
    """Return a database's URL so that it means the same from every working directory."""
    if not database_url.startswith("sqlite:"):
        return database_url
    url = make_url(database_url)
    if not url.database or url.database == ":memory:":
        raise ConfigurationError("FOREFILL_DATABASE_URL must name a file: a database in memory has one process only")
    return url.set(database=str(Path(url.database).absolute())).render_as_string(hide_password=False)


def _redis_url(old: str | None, port: int) -> str:
    return f"redis://:{_password(old) if old else _secret()}@{LOOPBACK}:{port}/0"


def _password(url: str) -> str:
    return urlsplit(url).password or ""


def _secret() -> str:
    return secrets.token_hex(24)


def _render(variables: Mapping[str, str]) -> str:
    head = "# Written by `forefill up`: addresses and secrets of this folder's stack. Own settings may be added.\n"
    return head + "".join(f"{name}='{value}'\n" for name, value in variables.items())
