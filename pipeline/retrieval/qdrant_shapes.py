"""Forefill's values as Qdrant's requests, and Qdrant's answers as Forefill's values. No client, no I/O.

Payload of a living point: `document_id`, `ordinal`, `generation`, `passage_key`, `text`, `metadata`, `token_counts`.
Of a buried one: `document_id`, `generation`, `buried` (true), `buried_at_ms`, and no vectors, so that no search can
find it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import JsonValue
from qdrant_client import models

from pipeline.errors import InvalidInput
from pipeline.retrieval.embedding import Embedding
from pipeline.retrieval.vector_index import (
    DENSE,
    RRF_K,
    SPARSE,
    Hit,
    Point,
    PointMove,
    PointState,
    Tombstone,
    any_of,
    prefetch_limit,
)

TIE_MARGIN = 16
"""Hits fetched beyond the limit. Qdrant orders equal scores by chance; fused ranks tie in small groups only."""

STATE_FIELDS = ["document_id", "generation", "buried"]
HIT_FIELDS = models.PayloadSelectorInclude(include=["document_id", "ordinal", "generation", "passage_key", "metadata"])
BURIED = models.FieldCondition(key="buried", match=models.MatchValue(value=True))


def older_than(generation: int) -> models.FieldCondition:
    """The fence: holds for stored points of a lower generation, and is not asked where nothing is stored."""
    return models.FieldCondition(key="generation", range=models.Range(lt=generation))


def living(point: Point) -> models.PointStruct:
    """A point with its vectors; without terms there is no sparse one."""
    payload = {
        "document_id": point.document_id,
        "ordinal": point.ordinal,
        "generation": point.generation,
        "passage_key": point.passage_key,
        "text": point.text,
        "metadata": dict(point.metadata),
        "token_counts": dict(point.token_counts),
    }
    return models.PointStruct(id=point.point_id, vector=_vectors(point.embedding), payload=payload)


def dead(stone: Tombstone, *, now_ms: int) -> models.PointStruct:
    """A tombstone: no vectors, and none of what the point held."""
    payload = {
        "document_id": stone.document_id,
        "generation": stone.generation,
        "buried": True,
        "buried_at_ms": now_ms,
    }
    return models.PointStruct(id=stone.point_id, vector={}, payload=payload)


def advance(move: PointMove) -> models.SetPayloadOperation:
    """A change of payload that holds for one living point of a lower generation."""
    target = models.Filter(
        must=[models.HasIdCondition(has_id=[move.point_id]), older_than(move.generation)], must_not=[BURIED]
    )
    payload = {"generation": move.generation, "ordinal": move.ordinal, "metadata": dict(move.metadata)}
    return models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, filter=target))


def state(record: models.Record) -> PointState:
    """What a stored point's payload says."""
    payload = record.payload or {}
    return PointState(
        point_id=str(record.id),
        document_id=payload["document_id"],
        generation=payload["generation"],
        buried=payload.get("buried", False),
    )


def hybrid(
    embedding: Embedding, *, limit: int, condition: models.Filter | None, score_threshold: float | None
) -> models.QueryRequest:
    """One search by both vectors. No filter on `buried`: tombstones have no vector to be found by."""
    if limit < 1:
        raise InvalidInput(f"A search needs a limit of 1 or more, not {limit}", item="limit")
    return models.QueryRequest(
        prefetch=[
            models.Prefetch(query=query, using=name, limit=prefetch_limit(limit), filter=condition)
            for name, query in _vectors(embedding).items()
        ],
        query=models.RrfQuery(rrf=models.Rrf(k=RRF_K)),
        limit=limit + TIE_MARGIN,
        with_payload=HIT_FIELDS,
        score_threshold=score_threshold,
    )


def ranked(points: Sequence[models.ScoredPoint], *, limit: int) -> list[Hit]:
    """Hits by falling score, equal ones by id, cut to the limit."""
    hits = [_hit(point) for point in points]
    return sorted(hits, key=lambda hit: (-hit.score, hit.point_id))[:limit]


def _vectors(embedding: Embedding) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: embedding.dense.tolist()}
    if embedding.sparse.indices:
        vectors[SPARSE] = models.SparseVector(
            indices=list(embedding.sparse.indices), values=list(embedding.sparse.values)
        )
    return vectors


def _hit(point: models.ScoredPoint) -> Hit:
    payload = point.payload or {}
    return Hit(
        point_id=str(point.id),
        document_id=payload["document_id"],
        ordinal=payload["ordinal"],
        generation=payload["generation"],
        passage_key=payload["passage_key"],
        score=point.score,
        metadata=payload["metadata"],
    )


def where_filter(where: Mapping[str, JsonValue]) -> models.Filter | None:
    """Every key must have one of its values; a list without values is had by nothing."""
    if not where:
        return None
    clauses: list[Any] = []
    for key, wanted in where.items():
        equal: list[Any] = [_equals(f'metadata."{key}"', value) for value in any_of(key, wanted)]
        clauses.append(models.Filter(should=equal) if equal else models.HasIdCondition(has_id=[]))
    return models.Filter(must=clauses)


def _equals(path: str, value: str | int | float) -> models.FieldCondition:
    if isinstance(value, float):
        return models.FieldCondition(key=path, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=path, match=models.MatchValue(value=value))
