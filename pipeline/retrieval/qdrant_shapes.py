"""Forefill's values as Qdrant's requests, and Qdrant's answers as Forefill's values. No client, no I/O.

Payload of a living point: `document_id`, `ordinal`, `generation`, `passage_key`, `text`, `metadata`, `token_counts`.
Of a buried one: `document_id`, `generation`, `buried` (true), `buried_at_ms`, and no vectors, so that no search can
find it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from qdrant_client import models

from pipeline.errors import InvalidInput
from pipeline.retrieval.conditions import Conditions, Scalar, nearest_float
from pipeline.retrieval.embedding import Embedding
from pipeline.retrieval.qdrant_errors import unreadable
from pipeline.retrieval.vector_index import (
    DENSE,
    RRF_K,
    SPARSE,
    Hit,
    LeftOut,
    Point,
    PointMove,
    PointState,
    Tombstone,
    prefetch_limit,
)

TIE_MARGIN = 16
"""Hits fetched beyond the limit. Qdrant orders equal scores by chance; fused ranks tie in small groups only."""

STATE_FIELDS = ["document_id", "generation", "buried"]
HIT_FIELDS = ["document_id", "ordinal", "generation", "passage_key"]
_Kind = TypeVar("_Kind")
_PASSAGE_KEY = re.compile("[0-9a-f]{32}")

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
        document_id=_field(payload, "document_id", str),
        generation=_field(payload, "generation", int),
        buried=payload.get("buried") is True,
    )


def text(record: models.Record) -> str:
    """What a living point's text is."""
    return _field(record.payload or {}, "text", str)


def hybrid(
    embedding: Embedding,
    *,
    limit: int,
    condition: models.Filter | None,
    score_threshold: float | None,
    with_metadata: bool,
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
        with_payload=models.PayloadSelectorInclude(include=[*HIT_FIELDS, "metadata"] if with_metadata else HIT_FIELDS),
        score_threshold=score_threshold,
    )


def ranked(points: Sequence[models.ScoredPoint]) -> list[Hit]:
    """Hits by falling score, equal ones by id."""
    return sorted((_hit(point) for point in points), key=lambda hit: (-hit.score, hit.point_id))


def _vectors(embedding: Embedding) -> dict[str, Any]:
    vectors: dict[str, Any] = {DENSE: embedding.dense.tolist()}
    if embedding.sparse.indices:
        vectors[SPARSE] = models.SparseVector(
            indices=list(embedding.sparse.indices), values=list(embedding.sparse.values)
        )
    return vectors


def _hit(point: models.ScoredPoint) -> Hit:
    payload = point.payload or {}
    passage_key = _field(payload, "passage_key", str)
    if not _PASSAGE_KEY.fullmatch(passage_key) or not math.isfinite(point.score):
        raise unreadable("holds a point that is none of Forefill's")
    return Hit(
        point_id=str(point.id),
        document_id=_field(payload, "document_id", str),
        ordinal=_field(payload, "ordinal", int),
        generation=_field(payload, "generation", int),
        passage_key=passage_key,
        score=point.score,
        metadata=_field(payload, "metadata", dict) if "metadata" in payload else {},
    )


def _field(payload: Mapping[str, Any], name: str, kind: type[_Kind]) -> _Kind:
    value = payload.get(name)
    if type(value) is not kind:
        raise unreadable("holds a point that is none of Forefill's")
    return value


def sieve(conditions: Conditions, left_out: LeftOut) -> models.Filter | None:
    """Return what lets through every point that fits, and of others only such whose numbers differ beyond 2**53.

    Every key must have one of its values; a list without values is had by nothing.
    """
    must: list[Any] = []
    for key, values in conditions.items():
        equal: list[Any] = [condition for value in values for condition in _equal(f'metadata."{key}"', value)]
        must.append(models.Filter(should=equal) if equal else models.HasIdCondition(has_id=[]))
    must_not: list[Any] = [_outdated(document_id, least) for document_id, least in left_out.outdated.items()]
    if left_out.copies:
        must_not.append(_copies(left_out.copies))
    return models.Filter(must=must or None, must_not=must_not or None) if must or must_not else None


def _equal(path: str, value: Scalar) -> list[models.FieldCondition]:
    """Compare text and booleans as values, and numbers by range: only that finds 2023.0 by 2023 and 2023 by 2023.0.

    The server compares a whole number that no float equals as the nearest one; local mode does not, so it is asked for
    as a value, too.
    """
    if isinstance(value, str | bool):
        return [models.FieldCondition(key=path, match=models.MatchValue(value=value))]
    number = nearest_float(value)
    equal = []
    if number is not None:
        equal.append(models.FieldCondition(key=path, range=models.Range(gte=number, lte=number)))
    if isinstance(value, int) and value != number and -(2**63) <= value < 2**63:
        equal.append(models.FieldCondition(key=path, match=models.MatchValue(value=value)))
    return equal


def _copies(kept: Mapping[str, str]) -> models.Filter:
    """Every point with one of these passage keys but the one that is kept of each."""
    same = models.FieldCondition(key="passage_key", match=models.MatchAny(any=list(kept)))
    return models.Filter(must=[same], must_not=[models.HasIdCondition(has_id=list(kept.values()))])


def _outdated(document_id: str, least: int) -> models.Filter:
    """The points of a document below a generation."""
    same = models.FieldCondition(key="document_id", match=models.MatchValue(value=document_id))
    return models.Filter(must=[same, older_than(least)])
