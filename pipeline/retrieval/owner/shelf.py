"""The data folder: who owns it, and which collections are in it.

    DIR/owner.lock                 held by `flock` as long as the process lives
    DIR/collections/ID/collection.json   name and shape; written last, so a folder without it never existed
    DIR/collections/ID/shard/      the engine's files
    DIR/collections/.new-ID, .dropped-ID   left by a crash while creating or dropping; removed at start

ID is random and never used again. Creating and dropping are one rename each.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ConfigurationError, Conflict, ForefillError, InvalidInput, NotFound
from pipeline.retrieval.owner.engine import Collection
from pipeline.retrieval.owner.schema import CollectionSchema
from pipeline.telemetry.logs import get_logger

BRUTE_FORCE_POINTS = 50_000
"""Above this, searching every vector takes several milliseconds: time for a Qdrant server."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}")
_LABEL = "collection.json"
_log = get_logger(__name__)


class _Label(BaseModel):
    """Content of `collection.json`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    collection: CollectionSchema


class Shelf:
    """All collections of one data folder, loaded. Made by `opened`."""

    def __init__(self, root: Path, lock: IO[str]) -> None:
        self._root = root
        self._lock = lock
        self._collections: dict[str, Collection] = {}
        self._folders: dict[str, Path] = {}

    @classmethod
    @contextmanager
    def opened(cls, data_dir: Path) -> Iterator[Self]:
        """Own a data folder and load everything in it; flush and close at the end.

        Raises:
            Conflict: Another process owns it.
            ConfigurationError: A collection in it cannot be loaded.
        """
        root = data_dir / "collections"
        root.mkdir(parents=True, exist_ok=True)
        data_dir.chmod(0o700)
        with _locked(data_dir) as lock:
            shelf = cls(root, lock)
            try:
                shelf._load()
                yield shelf
            finally:
                shelf.close()

    def names(self) -> list[str]:
        """Return the names of all collections, sorted."""
        return sorted(self._collections)

    def get(self, name: str) -> Collection:
        """Return a collection.

        Raises:
            NotFound: There is none of this name.
        """
        if name not in self._collections:
            raise NotFound(f"Collection `{name}` doesn't exist!")
        return self._collections[name]

    def create(self, name: str, schema: CollectionSchema) -> None:
        """Make an empty collection; it exists after a crash either whole or not at all.

        Raises:
            Conflict: The name is taken.
            InvalidInput: The name is not acceptable.
        """
        if not _NAME.fullmatch(name):
            raise InvalidInput("A collection name is 1 to 255 letters, digits or one of _ . : - (no . : - in front)")
        if name in self._collections:
            raise Conflict(f"Collection `{name}` already exists!")
        folder_id = uuid4().hex
        new, final = self._root / f".new-{folder_id}", self._root / folder_id
        new.mkdir()
        Collection.create(name, schema, folder=new / "shard").close()
        _write_synced(new / _LABEL, _Label(name=name, collection=schema).model_dump_json())
        new.rename(final)
        _sync_folder(self._root)
        self._collections[name] = Collection.load(name, schema, folder=final / "shard")
        self._folders[name] = final
        _log.info("qdrant.collection_created", collection=name)

    def drop(self, name: str) -> bool:
        """Remove a collection for good; return whether there was one."""
        collection = self._collections.pop(name, None)
        if collection is None:
            return False
        folder = self._folders.pop(name)
        collection.close()
        dropped = folder.with_name(f".dropped-{folder.name}")
        folder.rename(dropped)
        _sync_folder(self._root)
        shutil.rmtree(dropped)
        _log.info("qdrant.collection_dropped", collection=name)
        return True

    def flush(self) -> None:
        """Flush what was written to, and say once of each collection that it has grown too large."""
        for collection in self._collections.values():
            if collection.dirty:
                collection.flush()
                self._warn_of_size(collection)

    def close(self) -> None:
        """Flush and close everything; may be called again."""
        while self._collections:
            name, collection = self._collections.popitem()
            try:
                collection.close()
            except ForefillError:  # the others must still be closed; the log of this one replays at the next start
                _log.exception("qdrant.close_failed", collection=name)

    def _load(self) -> None:
        for leftover in (*self._root.glob(".new-*"), *self._root.glob(".dropped-*")):
            shutil.rmtree(leftover)
        for folder in sorted(self._root.iterdir()):
            label = _read_label(folder)
            self._collections[label.name] = _load(label, folder)
            self._folders[label.name] = folder
            self._warn_of_size(self._collections[label.name])

    def _warn_of_size(self, collection: Collection) -> None:
        if not collection.warned and (points := collection.size()) > BRUTE_FORCE_POINTS:
            collection.warned = True
            _log.warning(
                "qdrant.collection_large",
                collection=collection.name,
                points=points,
                advice=f"the embedded engine searches every vector; above {BRUTE_FORCE_POINTS} points run a Qdrant "
                "server and set FOREFILL_QDRANT_URL",
            )


@contextmanager
def _locked(data_dir: Path) -> Iterator[IO[str]]:
    """Hold the folder's lock; the kernel releases it however the process ends."""
    with (data_dir / "owner.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise Conflict(f"{data_dir} is owned by another process already (pid {owner})") from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _read_label(folder: Path) -> _Label:
    try:
        return _Label.model_validate_json((folder / _LABEL).read_bytes())
    except (OSError, ValidationError) as error:
        raise ConfigurationError(f"{folder / _LABEL} cannot be read: {error}") from error


def _load(label: _Label, folder: Path) -> Collection:
    try:
        return Collection.load(label.name, label.collection, folder=folder / "shard")
    except ForefillError as error:
        raise ConfigurationError(
            f"Collection {label.name!r} cannot be loaded ({error}); move {folder} away and ingest its corpus again"
        ) from error


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive power loss."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
