"""The vector index on Qdrant's REST: a server, a cluster, the embedded owner process, or qdrant-client's local mode.

Points and searches are shaped in `qdrant_shapes`; here are the clients, the batches and the errors.

Make clients after a fork and close them in the process that made them.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import httpx
from pydantic import JsonValue
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from pipeline.bounded_http import AnswerBounds, BoundedTransport, async_transport, proxy_for
from pipeline.errors import Conflict, InvalidInput
from pipeline.retrieval import qdrant_shapes as shapes
from pipeline.retrieval.conditions import conditions_of, holds
from pipeline.retrieval.embedding import Embedding
from pipeline.retrieval.joint_calls import JointCalls
from pipeline.retrieval.qdrant_errors import SERVICE, bounded, translated, unreadable
from pipeline.retrieval.vector_index import (
    DENSE,
    NOTHING,
    SPARSE,
    Hit,
    LeftOut,
    Point,
    PointMove,
    PointState,
    Tombstone,
    check_generations,
)

BATCH_POINTS = 100
"""Points in one writing call: the embedded engine serves nobody else meanwhile (about 13 ms)."""
BATCH_IDS = 500
"""Points in one reading call of a writer."""
BATCH_TEXTS = 16
"""Texts in one reading call: of at most 8 KiB each, so that no answer is long to parse."""
SEARCHERS_BYTES = 2 * 1024 * 1024
"""Most bytes of an answer that is parsed on an event loop: some searches at once, or some texts, escaped at worst."""
WRITERS_BYTES = 8 * 1024 * 1024
"""Most bytes of an answer to a worker."""
MOST_HITS = 1_000
"""Hits fetched at most to find enough whose numbers are equal beyond what a float can tell."""
JOINED_QUERIES = 4
"""Searches of different callers in one call: few, for each is answered when the last one is found."""
_KEEP_ALIVE_S = 30.0
"""Shorter than any server's, so that no request goes out on a connection that is being closed."""

_INDEXES = {
    "generation": models.PayloadSchemaType.INTEGER,
    "document_id": models.PayloadSchemaType.KEYWORD,
    "buried": models.PayloadSchemaType.BOOL,
}

_Item = TypeVar("_Item")


def connect_writer(url: str, *, api_key: str | None, timeout_s: float = 10.0) -> "QdrantWriter":
    """Make a writer. Nothing is sent yet.

    Args:
        url: `http://HOST:PORT` or `unix:///PATH`.
        api_key: Sent with every request; None for a server without keys.
        timeout_s: Longest time for one call, from sending it to the last byte of its answer.
    """
    bounds = AnswerBounds(SERVICE, "Qdrant", total_s=timeout_s, max_bytes=WRITERS_BYTES)
    uds = _unix_path(url)
    transport = BoundedTransport(bounds, url=url, uds=uds, proxy=None if uds else proxy_for(url))
    return QdrantWriter(QdrantClient(**_arguments(url, api_key=api_key, timeout_s=timeout_s), transport=transport))


def connect_searcher(
    url: str, *, api_key: str | None, timeout_s: float = 5.0, max_concurrency: int = 4
) -> "QdrantSearcher":
    """Make a searcher for one event loop. Nothing is sent yet.

    Args:
        url: As `connect_writer`.
        api_key: As `connect_writer`.
        timeout_s: As `connect_writer`; waiting for a free call is included.
        max_concurrency: Calls under way at once; more than a few only make each slower.
    """
    bounds = AnswerBounds(SERVICE, "Qdrant", total_s=timeout_s, max_bytes=SEARCHERS_BYTES)
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=max_concurrency, keepalive_expiry=_KEEP_ALIVE_S
    )
    transport = async_transport(bounds, url=url, limits=limits, uds=_unix_path(url))
    client = AsyncQdrantClient(**_arguments(url, api_key=api_key, timeout_s=timeout_s), transport=transport)
    return QdrantSearcher(client, max_concurrency=max_concurrency, timeout_s=timeout_s)


def _arguments(url: str, *, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Return what both of qdrant-client's classes take."""
    return {
        "url": "http://localhost" if _unix_path(url) else url,
        # As a header: the client's own argument warns about plain HTTP, which is what loopback speaks.
        "headers": {} if api_key is None else {"api-key": api_key},
        "timeout": math.ceil(timeout_s),  # for connecting; the transport bounds the whole
        "check_compatibility": False,
    }


def _unix_path(url: str) -> str | None:
    return url.removeprefix("unix:").removeprefix("//") if url.startswith("unix:") else None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class QdrantWriter:
    """`VectorIndexWriter` on a synchronous client, which it closes."""

    def __init__(self, client: QdrantClient, *, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._client = client
        self._clock_ms = clock_ms

    def ensure_collection(self, name: str, *, dimension: int) -> None:
        """Create a collection with its payload indexes, or complete one that was left half made."""
        with translated(name):
            if not self._client.collection_exists(name):
                self._create(name, dimension=dimension)
            info = self._client.get_collection(name)
            _check_shape(name, info.config.params, dimension=dimension)
            for key, kind in _INDEXES.items():
                if key not in info.payload_schema:
                    self._client.create_payload_index(name, key, kind, wait=True)

    def drop_collection(self, name: str) -> None:
        """Remove a collection with everything in it; nothing happens if it does not exist."""
        with translated(name):
            self._client.delete_collection(name)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Store points whose id is unknown or stored with a lower generation, tombstones included."""
        check_generations(points)
        self._upsert(name, [(point.generation, shapes.living(point)) for point in points])

    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        """Move living points with a lower generation on; absent and buried ones stay as they are."""
        check_generations(moves)
        for batch in _batches(moves, BATCH_POINTS):
            with translated(name):
                self._client.batch_update_points(name, [shapes.advance(move) for move in batch], wait=True)

    def bury(self, name: str, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where nothing, or a lower generation, is stored."""
        check_generations(tombstones)
        now_ms = self._clock_ms()
        self._upsert(name, [(stone.generation, shapes.dead(stone, now_ms=now_ms)) for stone in tombstones])

    def states(self, name: str, point_ids: Sequence[str]) -> dict[str, PointState]:
        """Return what is stored under these ids; absent ones are left out."""
        found: dict[str, PointState] = {}
        for batch in _batches(point_ids, BATCH_IDS):
            with translated(name):
                records = self._client.retrieve(name, list(batch), with_payload=shapes.STATE_FIELDS, with_vectors=False)
            found.update((str(record.id), shapes.state(record)) for record in records)
        return found

    def scroll(self, name: str) -> Iterator[PointState]:
        """Yield every point, tombstones too, in order of id and in pages, so that memory stays constant."""
        offset: Any = None
        while True:
            with translated(name):
                records, offset = self._client.scroll(
                    name, limit=BATCH_IDS, offset=offset, with_payload=shapes.STATE_FIELDS, with_vectors=False
                )
            yield from (shapes.state(record) for record in records)
            if offset is None:
                return

    def purge_buried(self, name: str, *, before_ms: int) -> None:
        """Remove tombstones written before a moment, in milliseconds since 1970."""
        old = models.FieldCondition(key="buried_at_ms", range=models.Range(lt=before_ms))
        selector = models.FilterSelector(filter=models.Filter(must=[shapes.BURIED, old]))
        with translated(name):
            self._client.delete(name, selector, wait=True)

    def count(self, name: str) -> int:
        """Return the number of living points."""
        with translated(name):
            return self._client.count(name, models.Filter(must_not=[shapes.BURIED]), exact=True).count

    def ping(self) -> None:
        """Return when the index can serve, raise Unavailable when not."""
        with translated("(none)"):
            self._client.get_collections()

    def title(self) -> str:
        """Return what the server calls itself and its version; the embedded engine says that it is one.

        Raises:
            Unavailable: It did not answer.
        """
        with translated("(none)"):
            info = self._client.info()
        return f"{info.title} {info.version}"

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _create(self, name: str, *, dimension: int) -> None:
        """Create a collection; if another worker was faster, theirs is as good."""
        try:
            with translated(name):
                self._client.create_collection(
                    name,
                    vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
                    sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                )
        except (Conflict, InvalidInput):  # servers before 1.10 say 400 where newer ones say 409
            with translated(name):
                if not self._client.collection_exists(name):
                    raise

    def _upsert(self, name: str, items: list[tuple[int, models.PointStruct]]) -> None:
        """Write conditionally: one filter per generation, older generations first, so that the newest stays."""
        for generation in sorted({generation for generation, _ in items}):
            older = models.Filter(must=[shapes.older_than(generation)])
            structs = [struct for its_generation, struct in items if its_generation == generation]
            for batch in _batches(structs, BATCH_POINTS):
                with translated(name):
                    self._client.upsert(name, list(batch), wait=True, update_filter=older)


class QdrantSearcher:
    """`VectorSearcher` on an asynchronous client, which it closes. Belongs to one event loop."""

    def __init__(self, client: AsyncQdrantClient, *, max_concurrency: int = 4, timeout_s: float = 5.0) -> None:
        self._client = client
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(max_concurrency)
        self._searches = JointCalls(self._query, max_calls=max_concurrency, max_joined=JOINED_QUERIES)

    async def search(
        self,
        name: str,
        embedding: Embedding,
        *,
        limit: int,
        where: Mapping[str, JsonValue] | None = None,
        score_threshold: float | None = None,
        left_out: LeftOut = NOTHING,
        with_metadata: bool = False,
    ) -> list[Hit]:
        """Return the nearest living passages, best first: both vectors searched, ranks fused."""
        conditions = conditions_of(where)
        condition = shapes.sieve(conditions, left_out)
        fetched = limit
        while True:
            request = shapes.hybrid(
                embedding,
                limit=fetched,
                condition=condition,
                score_threshold=score_threshold,
                with_metadata=with_metadata or bool(conditions),
            )
            async with bounded(name, self._timeout_s):
                found = shapes.ranked(await self._searches.ask(name, request))
            hits = [hit for hit in found if holds(hit.metadata, conditions)]
            if len(hits) >= limit or len(found) < fetched or fetched >= MOST_HITS:
                return hits[:limit]
            fetched = min(2 * fetched, MOST_HITS)

    async def search_batch(
        self,
        name: str,
        embeddings: Sequence[Embedding],
        *,
        limit: int,
        where: Mapping[str, JsonValue] | None = None,
        score_threshold: float | None = None,
    ) -> list[list[Hit]]:
        """Search for several questions at once; answers in their order."""
        searches = (
            self.search(name, embedding, limit=limit, where=where, score_threshold=score_threshold)
            for embedding in embeddings
        )
        return await asyncio.gather(*searches)

    async def _query(self, name: str, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        async with bounded(name, self._timeout_s), self._slots:
            responses = await self._client.query_batch_points(name, list(requests))
            answers = [response.points for response in responses]
        if len(answers) != len(requests):
            raise unreadable(f"holds {len(answers)} lists of points for {len(requests)} searches")
        return answers

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of living points; absent and buried ones are left out."""
        found: dict[str, str] = {}
        async with bounded(name, self._timeout_s):
            for batch in _batches(point_ids, BATCH_TEXTS):
                async with self._slots:
                    records = await self._client.retrieve(name, list(batch), with_payload=["text"], with_vectors=False)
                found.update((str(each.id), shapes.text(each)) for each in records if each.payload)
        return found

    async def ping(self) -> None:
        """Return when the index can serve, raise Unavailable when not."""
        async with bounded("(none)", self._timeout_s):
            await self._client.get_collections()

    async def close(self) -> None:
        """Give up searches and release connections."""
        await self._searches.close()
        await self._client.close()


def _batches(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _check_shape(name: str, params: models.CollectionParams, *, dimension: int) -> None:
    dense = params.vectors.get(DENSE) if isinstance(params.vectors, dict) else None
    sparse = (params.sparse_vectors or {}).get(SPARSE)
    if dense is None or dense.size != dimension or dense.distance is not models.Distance.COSINE:
        raise Conflict(f"Collection {name!r} exists without a {DENSE!r} cosine vector of {dimension} dimensions")
    if sparse is None or sparse.modifier is not models.Modifier.IDF:
        raise Conflict(f"Collection {name!r} exists without a {SPARSE!r} vector that is weighted by IDF")
