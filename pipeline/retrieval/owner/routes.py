"""The served part of Qdrant's REST: one function per path, each a whole request.

A function gets the shelf, the collection's name from the path and the parsed body, and returns the `result`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import qdrant_edge as edge
from pydantic import BaseModel, TypeAdapter
from qdrant_client.http import models

from pipeline.errors import InvalidInput, NotFound
from pipeline.retrieval.owner import filters, reads, writes
from pipeline.retrieval.owner.engine import Collection, engine_errors
from pipeline.retrieval.owner.schema import CollectionSchema, point_keys
from pipeline.retrieval.owner.shelf import Shelf


class Nothing(BaseModel, extra="forbid"):
    """Body of a request that has none."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One method and path."""

    method: str
    path: str
    body: TypeAdapter[Any]
    """How the body is parsed, with qdrant-client's own models."""
    handle: Callable[[Shelf, str, Any], Any]
    """Called with the shelf, the collection's name ("" if the path has none) and the body."""


def list_collections(shelf: Shelf, _name: str, _body: Nothing) -> dict[str, Any]:
    """All collections."""
    return {"collections": [{"name": name} for name in shelf.names()]}


def create_collection(shelf: Shelf, name: str, body: models.CreateCollection) -> bool:
    """A new collection; its shape is checked before its folder is made."""
    shelf.create(name, CollectionSchema.parse(body))
    return True


def get_collection(shelf: Shelf, name: str, _body: Nothing) -> dict[str, Any]:
    """Shape and size of a collection."""
    collection = shelf.get(name)
    with engine_errors():
        info = collection.shard.info()
    points = {key: index.points for key, index in info.payload_schema.items()}
    return {
        "status": "green",
        "optimizer_status": "ok",
        "points_count": info.points_count,
        "indexed_vectors_count": 0,
        "segments_count": info.segments_count,
        "config": {
            "params": collection.schema.to_params(),
            "hnsw_config": {"m": 0, "ef_construct": 100, "full_scan_threshold": 10_000},
            "optimizer_config": {"default_segment_number": 1, "flush_interval_sec": 2},
        },
        "payload_schema": {
            key: {"data_type": kind, "points": points[key]} for key, kind in collection.indexes().items()
        },
    }


def collection_exists(shelf: Shelf, name: str, _body: Nothing) -> dict[str, bool]:
    """Whether there is a collection of this name."""
    return {"exists": name in shelf.names()}


def drop_collection(shelf: Shelf, name: str, _body: Nothing) -> bool:
    """Remove a collection."""
    return shelf.drop(name)


def create_index(shelf: Shelf, name: str, body: models.CreateFieldIndex) -> dict[str, Any]:
    """Index a payload key."""
    if not isinstance(body.field_schema, models.PayloadSchemaType):
        raise InvalidInput("The embedded engine takes a payload index's type as one word, without parameters")
    return _done(shelf.get(name).add_index(body.field_name, body.field_schema))


def upsert_points(shelf: Shelf, name: str, body: models.PointInsertOperations) -> dict[str, Any]:
    """Insert or replace points, conditionally if there is an `update_filter`."""
    collection = shelf.get(name)
    with engine_errors():
        operation = writes.upsert(body, collection.schema)
    return _done(collection.apply([operation]))


def delete_points(shelf: Shelf, name: str, body: models.PointsSelector) -> dict[str, Any]:
    """Remove points by ids or by filter."""
    collection = shelf.get(name)
    with engine_errors():
        operation = writes.delete(body)
    return _done(collection.apply([operation]))


def set_payload(shelf: Shelf, name: str, body: models.SetPayload) -> dict[str, Any]:
    """Merge keys into payloads."""
    return _change_payload(shelf.get(name), body, overwrite=False)


def overwrite_payload(shelf: Shelf, name: str, body: models.SetPayload) -> dict[str, Any]:
    """Replace payloads."""
    return _change_payload(shelf.get(name), body, overwrite=True)


def update_batch(shelf: Shelf, name: str, body: models.UpdateOperations) -> list[dict[str, Any]]:
    """Apply several operations in their order."""
    collection = shelf.get(name)
    with engine_errors():
        operations = writes.batch(body, collection.schema)
    last = collection.apply(operations)
    return [_done(last - len(operations) + index + 1) for index in range(len(operations))]


def get_points(shelf: Shelf, name: str, body: models.PointRequest) -> list[dict[str, Any]]:
    """Points by id; absent ones are left out."""
    collection = shelf.get(name)
    if body.shard_key is not None:
        raise InvalidInput("The embedded engine has no shard keys")
    with engine_errors():
        stored = collection.shard.retrieve(
            point_keys(body.ids, at_most=writes.MAX_IDS),
            reads.payload_selector(body.with_payload, default=True),
            reads.vector_selector(body.with_vector, collection.schema),
        )
    return [reads.record(each) for each in stored]


def scroll_points(shelf: Shelf, name: str, body: models.ScrollRequest) -> dict[str, Any]:
    """One page of points in order of id."""
    collection = shelf.get(name)
    with engine_errors():
        stored, next_offset = collection.shard.scroll(reads.to_scroll(body, collection.schema))
    return {"points": [reads.record(each) for each in stored], "next_page_offset": next_offset}


def count_points(shelf: Shelf, name: str, body: models.CountRequest) -> dict[str, int]:
    """Number of points that match a filter, always exact."""
    collection = shelf.get(name)
    if body.shard_key is not None:
        raise InvalidInput("The embedded engine has no shard keys")
    with engine_errors():
        return {"count": collection.shard.count(edge.CountRequest(exact=True, filter=filters.to_edge(body.filter)))}


def query_points(shelf: Shelf, name: str, body: models.QueryRequest) -> dict[str, Any]:
    """Search, or search twice and fuse."""
    collection = shelf.get(name)
    with engine_errors():
        hits = collection.shard.query(reads.to_query(body, collection.schema))
    return {"points": reads.page(hits, body)}


def query_batch(shelf: Shelf, name: str, body: models.QueryRequestBatch) -> list[dict[str, Any]]:
    """Several searches in one call."""
    if len(body.searches) > reads.MAX_SEARCHES:
        raise InvalidInput(f"At most {reads.MAX_SEARCHES} queries in one batch, not {len(body.searches)}")
    collection = shelf.get(name)
    with engine_errors():
        queries = [reads.to_query(search, collection.schema) for search in body.searches]
        answers = collection.shard.query_batch(edge.QueryBatchRequest(queries)) if queries else []
    return [{"points": reads.page(hits, search)} for hits, search in zip(answers, body.searches, strict=True)]


def _change_payload(collection: Collection, body: models.SetPayload, *, overwrite: bool) -> dict[str, Any]:
    with engine_errors():
        operation = writes.change_payload(body, overwrite=overwrite)
    if body.points is not None and (missing := collection.missing(point_keys(body.points, at_most=writes.MAX_IDS))):
        raise NotFound(f"No point with id {missing[0]}; nothing was changed")
    return _done(collection.apply([operation]))


def _done(operation: int) -> dict[str, Any]:
    return {"operation_id": operation, "status": "completed"}


_ONE = "/collections/{name}"
_POINTS = f"{_ONE}/points"


def _endpoint(method: str, path: str, body: Any, handle: Callable[[Shelf, str, Any], Any]) -> Endpoint:
    return Endpoint(method, path, TypeAdapter(body), handle)


ENDPOINTS: Final = (
    _endpoint("GET", "/collections", Nothing, list_collections),
    _endpoint("PUT", _ONE, models.CreateCollection, create_collection),
    _endpoint("GET", _ONE, Nothing, get_collection),
    _endpoint("GET", f"{_ONE}/exists", Nothing, collection_exists),
    _endpoint("DELETE", _ONE, Nothing, drop_collection),
    _endpoint("PUT", f"{_ONE}/index", models.CreateFieldIndex, create_index),
    _endpoint("PUT", _POINTS, models.PointInsertOperations, upsert_points),
    _endpoint("POST", _POINTS, models.PointRequest, get_points),
    _endpoint("POST", f"{_POINTS}/delete", models.PointsSelector, delete_points),
    _endpoint("POST", f"{_POINTS}/payload", models.SetPayload, set_payload),
    _endpoint("PUT", f"{_POINTS}/payload", models.SetPayload, overwrite_payload),
    _endpoint("POST", f"{_POINTS}/batch", models.UpdateOperations, update_batch),
    _endpoint("POST", f"{_POINTS}/scroll", models.ScrollRequest, scroll_points),
    _endpoint("POST", f"{_POINTS}/count", models.CountRequest, count_points),
    _endpoint("POST", f"{_POINTS}/query", models.QueryRequest, query_points),
    _endpoint("POST", f"{_POINTS}/query/batch", models.QueryRequestBatch, query_batch),
)
"""Everything that is served beside `/`, `/healthz`, `/livez` and `/readyz`."""
