"""Debian packages as files: fetched by `apt-get download`, unpacked by `dpkg-deb`, neither of which needs root."""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = (
    *("rust-doc", "postgresql-doc-15", "postgresql-doc-17", "openjdk-17-doc", "openjdk-21-doc", "linux-doc-6.1"),
    *("linux-doc-6.12", "python3.11-doc", "python3.13-doc", "libreoffice-help-fr", "libreoffice-help-de"),
    *("libreoffice-help-ru", "libreoffice-help-zh-cn", "libreoffice-help-ja", "libreoffice-help-es"),
    *("libreoffice-help-ko", "libreoffice-help-pl", "erlang-doc", "qtbase5-doc-html", "debian-handbook"),
    *("python-django-doc", "python-sqlalchemy-doc", "sqlite3-doc", "apache2-doc", "python-sympy-doc"),
    *("python-pandas-doc", "cppreference-doc-en-html", "wx3.2-doc", "libboost1.74-doc", "ghc-doc", "libstdc++-12-doc"),
)
"""Of several releases: what a machine's release does not have is passed over. The order is the corpus' order."""

QUICK_PACKAGES = ("postgresql-doc-15", "postgresql-doc-17", "python-django-doc", "libreoffice-help-fr")
"""Small ones, enough for a quick run."""

HELD_OUT = ("postgresql-doc-15", "postgresql-doc-17")
"""English prose that no compression dictionary may be trained on: bytes per token are measured on it."""


class NoPackagesError(Exception):
    """This machine cannot fetch Debian packages, and why."""


@dataclass(frozen=True, slots=True)
class Package:
    """One fetched package."""

    name: str
    version: str
    sha256: str
    path: Path
    """The `.deb`."""


def require_tools() -> None:
    """Refuse to go on without apt and dpkg.

    Raises:
        NoPackagesError: One of them is missing.
    """
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise NoPackagesError(f"there is no {' and no '.join(missing)} here: this is not Debian or a relative of it")


def fetch(name: str, folder: Path) -> Package | None:
    """Return a package, downloaded unless it is there; None if this release has none of that name."""
    path = _find(name, folder)
    if path is None:
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "-qq", "download", name], cwd=folder, check=False, capture_output=True)
        path = _find(name, folder)
        if path is None:
            return None
    version = subprocess.run(
        ["dpkg-deb", "-f", path, "Version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return Package(name, version, hashlib.sha256(path.read_bytes()).hexdigest(), path)


def unpack(package: Package, folder: Path) -> Sequence[Path]:
    """Unpack a package and return its regular files in a fixed order."""
    subprocess.run(["dpkg-deb", "-x", package.path, folder], check=True, capture_output=True)
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _find(name: str, folder: Path) -> Path | None:
    return max(folder.glob(f"{name}_*.deb"), default=None)
