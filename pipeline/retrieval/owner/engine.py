"""One loaded collection: the engine's shard, its shape, and the engine's exceptions as Forefill's."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import qdrant_edge as edge
from qdrant_client.http import models

from pipeline.errors import Conflict, ForefillError, InvalidInput, NotFound
from pipeline.retrieval.owner.schema import CollectionSchema

INDEX_KINDS = {
    models.PayloadSchemaType.KEYWORD: edge.PayloadSchemaType.Keyword,
    models.PayloadSchemaType.INTEGER: edge.PayloadSchemaType.Integer,
    models.PayloadSchemaType.FLOAT: edge.PayloadSchemaType.Float,
    models.PayloadSchemaType.BOOL: edge.PayloadSchemaType.Bool,
}
"""Payload indexes that are served."""

_CALLER_MISTAKES = (
    "Vector dimension error",
    "Not existing vector name",
    "No range index",
    "Wrong input",
    "Bad request",
)


RESERVE_BYTES = 32 * 1024 * 1024
"""Free on the disk, or nothing is written: the engine writes to memory that is a file, and a full disk would end it in
the middle of that (SIGBUS), or have it put only some of a point's parts on disk."""


class EngineError(ForefillError):
    """The engine failed in a way that no request should cause."""


class OutOfSpaceError(EngineError):
    """The disk is full; nothing was written."""


@dataclass(slots=True)
class Collection:
    """A shard that this process owns. Not thread-safe: one thread, one call at a time."""

    name: str
    schema: CollectionSchema
    shard: edge.EdgeShard
    folder: Path
    """Where the shard is."""
    dirty: bool = False
    """Whether anything was written since the last flush."""
    operations: int = 0
    """Writes since the process started."""
    warned: bool = field(default=False)
    """Whether its size has been complained about."""

    @classmethod
    def create(cls, name: str, schema: CollectionSchema, *, folder: Path) -> Self:
        """Make an empty shard in a folder that does not exist yet."""
        folder.mkdir()
        with engine_errors():
            return cls(name, schema, edge.EdgeShard.create(str(folder), schema.to_edge()), folder)

    @classmethod
    def load(cls, name: str, schema: CollectionSchema, *, folder: Path) -> Self:
        """Open a shard, replaying what was acknowledged but not flushed, and flush it."""
        with engine_errors():
            collection = cls(name, schema, edge.EdgeShard.load(str(folder), schema.to_edge()), folder)
            collection.shard.flush()
        return collection

    def apply(self, operations: Sequence[edge.UpdateOperation]) -> int:
        """Apply checked operations in their order and return the number of the last one.

        Raises:
            OutOfSpaceError: The disk is almost full; nothing was written.
        """
        if shutil.disk_usage(self.folder).free < RESERVE_BYTES:
            raise OutOfSpaceError(f"No space left: less than {RESERVE_BYTES >> 20} MiB are free")
        with engine_errors():
            for operation in operations:
                self.dirty = True
                self.shard.update(operation)
                self.operations += 1
        return self.operations

    def add_index(self, key: str, kind: models.PayloadSchemaType) -> int:
        """Index a payload key; nothing happens if it is indexed that way already.

        Raises:
            Conflict: It is indexed in another way.
            InvalidInput: The kind of index is not served.
        """
        if kind not in INDEX_KINDS:
            raise InvalidInput(f"The embedded engine does not serve payload indexes of type {kind}")
        existing = self.indexes().get(key)
        if existing is None:
            with engine_errors():
                operation = edge.UpdateOperation.create_field_index(key, INDEX_KINDS[kind])
            return self.apply([operation])
        if existing != kind.value:
            raise Conflict(f"Payload key {key!r} is indexed as {existing}")
        return self.operations

    def indexes(self) -> dict[str, str]:
        """Return indexed payload keys with the kind of index, as REST names it."""
        names = {engine: rest.value for rest, engine in INDEX_KINDS.items()}
        with engine_errors():
            return {key: names[info.data_type] for key, info in self.shard.info().payload_schema.items()}

    def missing(self, point_ids: Sequence[Any]) -> list[Any]:
        """Return those of these canonical ids that are not stored."""
        with engine_errors():
            stored = {
                str(record.id) for record in self.shard.retrieve(list(point_ids), with_payload=False, with_vector=False)
            }
        return [point_id for point_id in point_ids if str(point_id) not in stored]

    def size(self) -> int:
        """Return the number of points, tombstones included."""
        with engine_errors():
            return self.shard.info().points_count

    def flush(self) -> None:
        """Put everything acknowledged on disk, so that even power loss keeps it, and shorten the log."""
        with engine_errors():
            self.shard.flush()
        self.dirty = False

    def close(self) -> None:
        """Flush and release the shard."""
        with engine_errors():
            self.shard.flush()
            self.shard.close()


@contextmanager
def engine_errors() -> Iterator[None]:
    """Translate what the engine raises; its panics are no `Exception`, and are not let through.

    Raises:
        InvalidInput: The engine refused the request before logging it.
        NotFound: A point does not exist.
        OutOfSpaceError: The disk is full.
        EngineError: Anything else.
    """
    try:
        yield
    except ForefillError:
        raise
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"The engine refuses the request: {error}") from error
    except Exception as error:
        raise _translated(error) from error
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise EngineError(f"The engine panicked: {error}") from error
        raise


def _translated(error: Exception) -> ForefillError:
    message = str(error)
    if "No point with id" in message:
        return NotFound(message)
    if "No space left" in message:
        return OutOfSpaceError(message)
    if any(mistake in message for mistake in _CALLER_MISTAKES):
        return InvalidInput(message)
    return EngineError(message)
