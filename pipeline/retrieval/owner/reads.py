"""Reads: from Qdrant's REST models to the engine's requests, and the engine's answers to JSON."""

from collections.abc import Iterable
from typing import Any

import qdrant_edge as edge
from qdrant_client.http import models

from pipeline.errors import InvalidInput
from pipeline.retrieval.owner import filters
from pipeline.retrieval.owner.schema import CollectionSchema, point_key

MAX_LIMIT = 10_000
"""Hits of one query, candidates of one prefetch, records of one page."""
MAX_SEARCHES = 100
"""Queries in one batch, and prefetches of one query."""
TIE_MARGIN = 32
"""Hits fetched beyond what was asked, so that equal scores at the cut are cut by id, not by chance."""
DEFAULT_RRF_K = 2


def to_query(request: models.QueryRequest, schema: CollectionSchema) -> edge.QueryRequest:
    """Translate a query; it asks for more than the request, from the first hit on: `page` cuts.

    Raises:
        InvalidInput: A part of it is not served, malformed or over a limit.
    """
    _refuse(request, ("shard_key", "lookup_from"))
    _check_params(request.params)
    prefetches = [_prefetch(each, schema) for each in _listed(request.prefetch)]
    return edge.QueryRequest(
        limit=_between(request.offset, "offset", default=0, least=0)
        + _between(request.limit, "limit", default=10)
        + TIE_MARGIN,
        prefetches=prefetches,
        query=_fusion(request.query) if prefetches else _nearest(request.query, request.using, schema),
        filter=filters.to_edge(request.filter),
        score_threshold=request.score_threshold,
        with_payload=payload_selector(request.with_payload, default=False),
        with_vector=vector_selector(request.with_vector, schema),
    )


def page(hits: Iterable[edge.ScoredPoint], request: models.QueryRequest) -> list[dict[str, Any]]:
    """Order hits by score, then id, and cut out what the request asked for."""
    ranked = sorted(hits, key=lambda hit: (-hit.score, str(hit.id)))
    first = request.offset or 0
    last = first + (10 if request.limit is None else request.limit)
    return [{"id": hit.id, "version": hit.version, "score": hit.score, **_contents(hit)} for hit in ranked[first:last]]


def to_scroll(request: models.ScrollRequest, schema: CollectionSchema) -> edge.ScrollRequest:
    """Translate a request for one page of records.

    Raises:
        InvalidInput: A part of it is not served, malformed or over a limit.
    """
    _refuse(request, ("shard_key", "order_by"))
    return edge.ScrollRequest(
        offset=None if request.offset is None else point_key(request.offset),
        limit=_between(request.limit, "limit", default=10),
        filter=filters.to_edge(request.filter),
        with_payload=payload_selector(request.with_payload, default=True),
        with_vector=vector_selector(request.with_vector, schema),
    )


def record(stored: edge.Record) -> dict[str, Any]:
    """Return one stored point as Qdrant writes it."""
    return {"id": stored.id, **_contents(stored)}


def payload_selector(selector: models.WithPayloadInterface | None, *, default: bool) -> Any:
    """Translate which parts of the payload to return."""
    match selector:
        case None:
            return default
        case models.PayloadSelectorInclude():
            return edge.PayloadSelector.Include(selector.include)
        case models.PayloadSelectorExclude():
            return edge.PayloadSelector.Exclude(selector.exclude)
        case _:
            return selector


def vector_selector(selector: models.WithVector | None, schema: CollectionSchema) -> bool | list[str]:
    """Translate which vectors to return.

    Raises:
        InvalidInput: The collection has no vector of this name.
    """
    if isinstance(selector, list):
        for name in selector:
            if name not in schema.dense and name not in schema.sparse:
                raise InvalidInput(f"Not existing vector name: {name!r}")
    return selector or False


def _contents(stored: edge.Record | edge.ScoredPoint) -> dict[str, Any]:
    vector: Any = stored.vector
    if isinstance(vector, dict):
        vector = {
            name: {"indices": each.indices, "values": each.values} if isinstance(each, edge.SparseVector) else each
            for name, each in vector.items()
        }
    return {"payload": stored.payload, "vector": vector}


def _prefetch(request: models.Prefetch, schema: CollectionSchema) -> edge.Prefetch:
    _refuse(request, ("prefetch", "lookup_from"))
    _check_params(request.params)
    return edge.Prefetch(
        limit=_between(request.limit, "limit", default=10),
        query=_nearest(request.query, request.using, schema),
        filter=filters.to_edge(request.filter),
        score_threshold=request.score_threshold,
    )


def _nearest(query: models.QueryInterface | None, using: str | None, schema: CollectionSchema) -> edge.Query:
    if isinstance(query, models.NearestQuery):
        _refuse(query, ("mmr",))
        query = query.nearest
    if not isinstance(query, list | models.SparseVector):
        raise InvalidInput("The embedded engine serves queries by a dense or a sparse vector, and RRF over prefetches")
    return edge.Query.Nearest(schema.vector(using or "", query), using=using)


def _fusion(query: models.QueryInterface | None) -> Any:  # the engine's stubs do not say that Rrf is a Fusion
    match query:
        case models.RrfQuery(rrf=models.Rrf(k=k, weights=None)):
            return edge.Fusion.Rrf(k=_between(k, "rrf.k", default=DEFAULT_RRF_K))
        case models.FusionQuery(fusion=models.Fusion.RRF):
            return edge.Fusion.Rrf(k=DEFAULT_RRF_K)
        case _:
            raise InvalidInput("The embedded engine fuses prefetches by unweighted RRF only")


def _listed(prefetch: list[models.Prefetch] | models.Prefetch | None) -> list[models.Prefetch]:
    listed = prefetch if isinstance(prefetch, list) else [] if prefetch is None else [prefetch]
    if len(listed) > MAX_SEARCHES:
        raise InvalidInput(f"At most {MAX_SEARCHES} prefetches, not {len(listed)}")
    return listed


def _check_params(params: models.SearchParams | None) -> None:
    """Search is exact already: `exact` changes nothing, everything else would be ignored."""
    if params is not None:
        _refuse(params, ("hnsw_ef", "quantization", "indexed_only", "acorn", "idf"))


def _refuse(request: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(request, name):
            raise InvalidInput(f"The embedded engine does not serve {name!r}; run a Qdrant server for it")


def _between(value: int | None, name: str, *, default: int, least: int = 1) -> int:
    number = default if value is None else value
    if not least <= number <= MAX_LIMIT:
        raise InvalidInput(f"{name} must be {least} to {MAX_LIMIT}, not {number}")
    return number
