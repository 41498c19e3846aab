"""Writes: from Qdrant's REST models to the engine's operations, each checked whole before anything is logged.

A batch is not atomic in the engine: a bad point leaves those before it applied. So a request becomes a list of
operations first, all of them valid, and is applied only then.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import qdrant_edge as edge
from qdrant_client.http import models

from pipeline.errors import InvalidInput
from pipeline.retrieval.owner import filters
from pipeline.retrieval.owner.schema import CollectionSchema, point_key, point_keys

MAX_POINTS = 100
"""Points of one upsert and operations of one batch: a call stalls the process for about 13 ms."""
MAX_NESTING = 64
"""Lists and objects inside one another in a payload; the engine's log cannot be read from 128 on."""
MAX_IDS = 1_000
"""Point ids of one delete, read or payload change."""

_MODES = {
    models.UpdateMode.UPSERT: edge.UpdateMode.Upsert,
    models.UpdateMode.INSERT_ONLY: edge.UpdateMode.InsertOnly,
    models.UpdateMode.UPDATE_ONLY: edge.UpdateMode.UpdateOnly,
}


def upsert(request: models.PointsList | models.PointsBatch, schema: CollectionSchema) -> edge.UpdateOperation:
    """Check and translate an upsert, conditional or not.

    Raises:
        InvalidInput: Any of its points is bad, one comes twice, or there are too many.
    """
    if not isinstance(request, models.PointsList):
        raise InvalidInput("The embedded engine takes points as a list of objects, not as columns")
    _refuse_shard_key(request)
    if len(request.points) > MAX_POINTS:
        raise InvalidInput(f"At most {MAX_POINTS} points in one upsert, not {len(request.points)}")
    points = [_point(point, schema) for point in request.points]
    if len({point.id for point in points}) != len(points):
        raise InvalidInput("A point id comes twice in one upsert; the engine would keep the last, whatever the filter")
    return edge.UpdateOperation.upsert_points(
        points,
        condition=filters.to_edge(request.update_filter),
        update_mode=None if request.update_mode is None else _MODES[request.update_mode],
    )


def delete(request: models.PointsSelector) -> edge.UpdateOperation:
    """Check and translate a delete by ids or by filter."""
    _refuse_shard_key(request)
    if isinstance(request, models.PointIdsList):
        return edge.UpdateOperation.delete_points(_ids(request.points))
    return edge.UpdateOperation.delete_points_by_filter(_some_filter(request.filter))


def change_payload(request: models.SetPayload, *, overwrite: bool = False) -> edge.UpdateOperation:
    """Check and translate setting or replacing payload, by ids or by filter.

    With ids the caller must have made sure that all exist: the engine stops at the first that does not.
    """
    _refuse_shard_key(request)
    if request.key is not None:
        raise InvalidInput("The embedded engine changes payload at the top level only")
    if (request.points is None) == (request.filter is None):
        raise InvalidInput("A payload change needs either points or a filter")
    if request.points is not None:
        by_ids = edge.UpdateOperation.overwrite_payload if overwrite else edge.UpdateOperation.set_payload
        return by_ids(_ids(request.points), checked_payload(request.payload))
    by_filter = (
        edge.UpdateOperation.overwrite_payload_by_filter if overwrite else edge.UpdateOperation.set_payload_by_filter
    )
    return by_filter(_some_filter(request.filter), checked_payload(request.payload))


def batch(request: models.UpdateOperations, schema: CollectionSchema) -> list[edge.UpdateOperation]:
    """Check and translate several operations, to be applied in their order.

    Raises:
        InvalidInput: Any operation is bad or not served, or there are too many operations or points.
    """
    if len(request.operations) > MAX_POINTS:
        raise InvalidInput(f"At most {MAX_POINTS} operations in one batch, not {len(request.operations)}")
    upserts = [each.upsert for each in request.operations if isinstance(each, models.UpsertOperation)]
    if sum(len(each.points) for each in upserts if isinstance(each, models.PointsList)) > MAX_POINTS:
        raise InvalidInput(f"At most {MAX_POINTS} points in one batch")
    return [_operation(operation, schema) for operation in request.operations]


def checked_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Return a payload that the engine can read back.

    Raises:
        InvalidInput: It is nested too deeply. The engine would log it, and never load the shard again.
    """
    if is_nested_deeper(payload, MAX_NESTING):
        raise InvalidInput(f"Payload may be nested {MAX_NESTING} deep")
    return payload


def is_nested_deeper(value: dict[str, Any] | list[Any], depth: int, *, reads_vectors: bool = True) -> bool:
    """Return whether objects and lists stand in one another more than `depth` deep.

    Args:
        value: What JSON says.
        depth: Most levels.
        reads_vectors: False passes over lists that begin with a number, which are long and mostly vectors.
    """
    level = [value]
    for _ in range(depth):
        level = [inner for outer in level for inner in _inner(outer) if isinstance(inner, dict | list)]
        if not reads_vectors:
            level = [inner for inner in level if not _is_vector(inner)]
        if not level:
            return False
    return True


def _inner(value: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value


def _is_vector(value: dict[str, Any] | list[Any]) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], int | float)


def _operation(operation: models.UpdateOperation, schema: CollectionSchema) -> edge.UpdateOperation:
    match operation:
        case models.UpsertOperation():
            return upsert(operation.upsert, schema)
        case models.DeleteOperation():
            return delete(operation.delete)
        case models.SetPayloadOperation(set_payload=change) if change.points is None:
            return change_payload(change)
        case models.OverwritePayloadOperation(overwrite_payload=change) if change.points is None:
            return change_payload(change, overwrite=True)
        case _:
            raise InvalidInput(
                f"The embedded engine does not serve {type(operation).__name__} in a batch "
                "(payload is changed by filter there, for instance on has_id)"
            )


def _point(point: models.PointStruct, schema: CollectionSchema) -> edge.Point:
    return edge.Point(point_key(point.id), schema.point_vectors(point.vector), checked_payload(point.payload or {}))


def _ids(point_ids: Sequence[Any]) -> list[Any]:
    return point_keys(point_ids, at_most=MAX_IDS)


def _some_filter(filter_: models.Filter | None) -> edge.Filter:
    translated = filters.to_edge(filter_)
    if translated is None:
        raise InvalidInput("A filter is missing")
    return translated


def _refuse_shard_key(request: Any) -> None:
    if request.shard_key is not None:
        raise InvalidInput("The embedded engine has no shard keys")
