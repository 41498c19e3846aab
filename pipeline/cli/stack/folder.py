"""The data directory: checked for what would go wrong later, owned by one supervisor at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import ConfigurationError, Conflict
from pipeline.settings import MIB

LOCK_FILE = "up.lock"
"""Held with flock by the running `forefill up`; the kernel frees it whatever happens to its owner."""

_FREE_BYTES = 64 * MIB
_UNQUOTABLE = frozenset("'\"\\#?$%\n\r\0")


@contextmanager
def owned_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, take it for the life of a `with` block, and return its absolute path.

    What is made meanwhile is for its owner only; a folder that was made here and stayed empty is gone afterwards.

    Raises:
        ConfigurationError: It cannot be made or written, its disk is full, or its path cannot be written in settings.
        Conflict: Another `forefill up` runs on it.
    """
    folder = folder.absolute()
    if odd := sorted(_UNQUOTABLE & set(str(folder))):
        raise ConfigurationError(f"the path of the data directory holds {odd[0]!r}; choose another folder")
    umask = os.umask(0o077)
    is_new = not folder.exists()
    try:
        with _locked(folder):
            _check_room(folder)
            yield folder
    finally:
        os.umask(umask)
        if is_new:
            with suppress(OSError):  # it is in use now
                folder.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    path = folder / LOCK_FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = _take(path)
    except OSError as error:
        raise ConfigurationError(f"cannot use {folder} for the data: {error.strerror}") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(lock)


def _take(path: Path) -> int:
    """Open and lock the file; once more if its last owner removed it in between."""
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise Conflict(f"{path.parent} is in use: another `forefill up` runs on it") from error
        with suppress(FileNotFoundError):
            if os.fstat(lock).st_ino == path.stat().st_ino:
                return lock
        os.close(lock)


def _check_room(folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < _FREE_BYTES:
        raise ConfigurationError(
            f"the disk of {folder} is full: {free // MIB} MiB are free, {_FREE_BYTES // MIB} MiB or more are needed"
        )
