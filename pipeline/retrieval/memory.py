"""The vector index in memory: the same conditions and the same ranking in plain Python, for tests and small models.

Searches compare every vector. Ranks follow the definition, so this is also the oracle for the others.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import RLock

import numpy as np
from pydantic import JsonValue

from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.retrieval.conditions import conditions_of, holds
from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.vector_index import (
    NOTHING,
    RRF_K,
    Hit,
    LeftOut,
    Point,
    PointMove,
    PointState,
    Tombstone,
    check_generations,
    prefetch_limit,
)


@dataclass(frozen=True, slots=True)
class _Buried:
    stone: Tombstone
    at_ms: int


@dataclass(slots=True)
class _Collection:
    dimension: int
    alive: dict[str, Point] = field(default_factory=dict)
    buried: dict[str, _Buried] = field(default_factory=dict)

    def generation(self, point_id: str) -> int:
        """Return the stored generation, -1 if nothing is stored."""
        if point_id in self.alive:
            return self.alive[point_id].generation
        return self.buried[point_id].stone.generation if point_id in self.buried else -1


class MemoryVectorIndex:
    """`VectorIndexWriter` over dictionaries. One lock makes every call atomic."""

    def __init__(self, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock_ms = clock_ms
        self._collections: dict[str, _Collection] = {}
        self._lock = RLock()

    def searcher(self) -> "MemoryVectorSearcher":
        """Return a searcher over the same points."""
        return MemoryVectorSearcher(self)

    def ensure_collection(self, name: str, *, dimension: int) -> None:
        """Create a collection; one of the same dimension may exist."""
        with self._lock:
            collection = self._collections.setdefault(name, _Collection(dimension))
            if collection.dimension != dimension:
                raise Conflict(f"Collection {name!r} exists with {collection.dimension} dimensions, not {dimension}")

    def drop_collection(self, name: str) -> None:
        """Remove a collection with everything in it; nothing happens if it does not exist."""
        with self._lock:
            self._collections.pop(name, None)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Store points whose id is unknown or stored with a lower generation, tombstones included."""
        check_generations(points)
        with self._lock:
            collection = self._get(name)
            for point in points:
                if point.embedding.dense.shape != (collection.dimension,):
                    raise InvalidInput(f"Point {point.point_id}: the dense vector has another dimension")
            for point in points:
                if collection.generation(point.point_id) < point.generation:
                    collection.buried.pop(point.point_id, None)
                    collection.alive[point.point_id] = point

    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        """Move living points with a lower generation on; absent and buried ones stay as they are."""
        check_generations(moves)
        with self._lock:
            collection = self._get(name)
            for move in moves:
                point = collection.alive.get(move.point_id)
                if point is not None and point.generation < move.generation:
                    collection.alive[move.point_id] = replace(
                        point, ordinal=move.ordinal, generation=move.generation, metadata=dict(move.metadata)
                    )

    def bury(self, name: str, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where nothing, or a lower generation, is stored."""
        check_generations(tombstones)
        with self._lock:
            collection = self._get(name)
            for stone in tombstones:
                if collection.generation(stone.point_id) < stone.generation:
                    collection.alive.pop(stone.point_id, None)
                    collection.buried[stone.point_id] = _Buried(stone, self._clock_ms())

    def states(self, name: str, point_ids: Sequence[str]) -> dict[str, PointState]:
        """Return what is stored under these ids; absent ones are left out."""
        with self._lock:
            collection = self._get(name)
            return {
                point_id: _state(collection, point_id)
                for point_id in point_ids
                if point_id in collection.alive or point_id in collection.buried
            }

    def scroll(self, name: str) -> Iterator[PointState]:
        """Yield every point, tombstones too, in order of id."""
        with self._lock:
            collection = self._get(name)
            point_ids = sorted(collection.alive.keys() | collection.buried.keys())
        for point_id in point_ids:
            yield from self.states(name, [point_id]).values()

    def purge_buried(self, name: str, *, before_ms: int) -> None:
        """Remove tombstones written before a moment, in milliseconds since 1970."""
        with self._lock:
            collection = self._get(name)
            kept = {point_id: each for point_id, each in collection.buried.items() if each.at_ms >= before_ms}
            collection.buried = kept

    def count(self, name: str) -> int:
        """Return the number of living points."""
        with self._lock:
            return len(self._get(name).alive)

    def ping(self) -> None:
        """Return: memory always serves."""

    def close(self) -> None:
        """Keep everything: other users of the same index may still need it."""

    def living(self, name: str) -> dict[str, Point]:
        """Return living points by id, for searching and for tests that look at all of a point."""
        with self._lock:
            return dict(self._get(name).alive)

    def _get(self, name: str) -> _Collection:
        if name not in self._collections:
            raise NotFound(f"Collection {name!r} does not exist")
        return self._collections[name]


class MemoryVectorSearcher:
    """`VectorSearcher` over a `MemoryVectorIndex`."""

    def __init__(self, index: MemoryVectorIndex) -> None:
        self._index = index

    async def search(
        self,
        name: str,
        embedding: Embedding,
        *,
        limit: int,
        where: Mapping[str, JsonValue] | None = None,
        score_threshold: float | None = None,
        left_out: LeftOut = NOTHING,
        with_metadata: bool = False,  # noqa: ARG002  # here it costs nothing
    ) -> list[Hit]:
        """Return the nearest living passages, best first: both vectors searched, ranks fused."""
        if limit < 1:
            raise InvalidInput(f"A search needs a limit of 1 or more, not {limit}", item="limit")
        everything = self._index.living(name)
        conditions = conditions_of(where)
        candidates = {
            key: point
            for key, point in everything.items()
            if holds(point.metadata, conditions) and not _is_left_out(point, left_out)
        }
        depth = prefetch_limit(limit)
        weights = _inverse_frequencies(embedding.sparse, everything.values())
        fused = _fuse(_by_dense(embedding, candidates)[:depth], _by_sparse(weights, candidates)[:depth])
        hits = [_hit(candidates[point_id], score) for point_id, score in fused.items()]
        good = [hit for hit in hits if score_threshold is None or hit.score >= score_threshold]
        return sorted(good, key=lambda hit: (-hit.score, hit.point_id))[:limit]

    async def search_batch(
        self,
        name: str,
        embeddings: Sequence[Embedding],
        *,
        limit: int,
        where: Mapping[str, JsonValue] | None = None,
        score_threshold: float | None = None,
    ) -> list[list[Hit]]:
        """Search for several questions; answers in their order."""
        return [
            await self.search(name, embedding, limit=limit, where=where, score_threshold=score_threshold)
            for embedding in embeddings
        ]

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of living points; absent and buried ones are left out."""
        alive = self._index.living(name)
        return {point_id: alive[point_id].text for point_id in point_ids if point_id in alive}

    async def ping(self) -> None:
        """Return: memory always serves."""

    async def close(self) -> None:
        """Release nothing."""


def _state(collection: _Collection, point_id: str) -> PointState:
    if point_id in collection.alive:
        point = collection.alive[point_id]
        return PointState(point_id, point.document_id, point.generation, buried=False)
    stone = collection.buried[point_id].stone
    return PointState(point_id, stone.document_id, stone.generation, buried=True)


def _hit(point: Point, score: float) -> Hit:
    return Hit(
        point_id=point.point_id,
        document_id=point.document_id,
        ordinal=point.ordinal,
        generation=point.generation,
        passage_key=point.passage_key,
        score=score,
        metadata=dict(point.metadata),
    )


def _by_dense(embedding: Embedding, points: Mapping[str, Point]) -> list[str]:
    """Return ids by falling cosine, equal ones by id."""
    query = embedding.dense / np.linalg.norm(embedding.dense)
    scores = {
        point_id: float(np.dot(query, point.embedding.dense / np.linalg.norm(point.embedding.dense)))
        for point_id, point in points.items()
    }
    return sorted(scores, key=lambda point_id: (-scores[point_id], point_id))


def _by_sparse(query: Mapping[int, float], points: Mapping[str, Point]) -> list[str]:
    """Return ids of points that share a dimension with the query by falling product, equal ones by id."""
    scores: dict[str, float] = {}
    for point_id, point in points.items():
        sparse = point.embedding.sparse
        products = [
            query[index] * weight for index, weight in zip(sparse.indices, sparse.values, strict=True) if index in query
        ]
        if products:
            scores[point_id] = sum(products)
    return sorted(scores, key=lambda point_id: (-scores[point_id], point_id))


def _inverse_frequencies(query: SparseVector, points: Iterable[Point]) -> dict[int, float]:
    """Scale a query's weights as Qdrant's IDF modifier does: by ln(1 + (N - n + 0.5) / (n + 0.5)) over all points."""
    having = [point.embedding.sparse.indices for point in points if point.embedding.sparse.indices]
    frequency = Counter(index for indices in having for index in indices)
    return {
        index: weight * math.log(1 + (len(having) - frequency[index] + 0.5) / (frequency[index] + 0.5))
        for index, weight in zip(query.indices, query.values, strict=True)
    }


def _fuse(*rankings: Sequence[str]) -> dict[str, float]:
    """Fuse ranks: unweighted reciprocal rank fusion."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, point_id in enumerate(ranking):
            scores[point_id] = scores.get(point_id, 0.0) + 1 / (RRF_K + rank)
    return scores


def _is_left_out(point: Point, left_out: LeftOut) -> bool:
    kept = left_out.copies.get(point.passage_key, point.point_id)
    return kept != point.point_id or point.generation < left_out.outdated.get(point.document_id, 0)
