"""The vector index on Qdrant's REST: a server, a cluster, the embedded owner process, or qdrant-client's local mode.

Points and searches are shaped in `qdrant_shapes`; here are the clients, the batches and the errors.

Make clients after a fork and close them in the process that made them.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
import orjson
from pydantic import JsonValue
from qdrant_client import AsyncQdrantClient, QdrantClient, models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import ConfigurationError, Conflict, ForefillError, InvalidInput, NotFound, TooLarge, Unavailable
from pipeline.retrieval import qdrant_shapes as shapes
from pipeline.retrieval.conditions import conditions_of, holds
from pipeline.retrieval.embedding import Embedding
from pipeline.retrieval.joint_calls import JointCalls
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
"""Points in one reading call."""
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


@dataclass(frozen=True, slots=True)
class _Connection:
    """Arguments that both of qdrant-client's classes take."""

    url: str
    api_key: str | None
    timeout_s: float
    connections: int

    def arguments(self, transport: Callable[..., Any]) -> dict[str, Any]:
        limits = httpx.Limits(
            max_connections=None, max_keepalive_connections=self.connections, keepalive_expiry=_KEEP_ALIVE_S
        )
        common: dict[str, Any] = {
            # As a header: the client's own argument warns about plain HTTP, which is what loopback speaks.
            "headers": {} if self.api_key is None else {"api-key": self.api_key},
            "timeout": self.timeout_s,
            "check_compatibility": False,
            "limits": limits,
        }
        if self.url.startswith("unix:"):
            path = self.url.removeprefix("unix:").removeprefix("//")
            return {**common, "url": "http://localhost", "transport": transport(uds=path, limits=limits)}
        return {**common, "url": self.url}


def connect_writer(url: str, *, api_key: str | None, timeout_s: float = 10.0) -> "QdrantWriter":
    """Make a writer. Nothing is sent yet.

    Args:
        url: `http://HOST:PORT` or `unix:///PATH`.
        api_key: Sent with every request; None for a server without keys.
        timeout_s: Longest wait for an answer, rounded up to whole seconds by the client.
    """
    connection = _Connection(url, api_key, timeout_s, connections=2)
    return QdrantWriter(QdrantClient(**connection.arguments(httpx.HTTPTransport)))


def connect_searcher(
    url: str, *, api_key: str | None, timeout_s: float = 5.0, max_concurrency: int = 4
) -> "QdrantSearcher":
    """Make a searcher for one event loop. Nothing is sent yet.

    Args:
        url: As `connect_writer`.
        api_key: As `connect_writer`.
        timeout_s: As `connect_writer`.
        max_concurrency: Calls under way at once; more than a few only make each slower.
    """
    connection = _Connection(url, api_key, timeout_s, connections=max_concurrency)
    client = AsyncQdrantClient(**connection.arguments(httpx.AsyncHTTPTransport))
    return QdrantSearcher(client, max_concurrency=max_concurrency)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class QdrantWriter:
    """`VectorIndexWriter` on a synchronous client, which it closes."""

    def __init__(self, client: QdrantClient, *, clock_ms: Callable[[], int] = _now_ms) -> None:
        self._client = client
        self._clock_ms = clock_ms

    def ensure_collection(self, name: str, *, dimension: int) -> None:
        """Create a collection with its payload indexes, or complete one that was left half made."""
        with _translated(name):
            if not self._client.collection_exists(name):
                self._create(name, dimension=dimension)
            info = self._client.get_collection(name)
            _check_shape(name, info.config.params, dimension=dimension)
            for key, kind in _INDEXES.items():
                if key not in info.payload_schema:
                    self._client.create_payload_index(name, key, kind, wait=True)

    def drop_collection(self, name: str) -> None:
        """Remove a collection with everything in it; nothing happens if it does not exist."""
        with _translated(name):
            self._client.delete_collection(name)

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Store points whose id is unknown or stored with a lower generation, tombstones included."""
        check_generations(points)
        self._upsert(name, [(point.generation, shapes.living(point)) for point in points])

    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        """Move living points with a lower generation on; absent and buried ones stay as they are."""
        check_generations(moves)
        for batch in _batches(moves, BATCH_POINTS):
            with _translated(name):
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
            with _translated(name):
                records = self._client.retrieve(name, list(batch), with_payload=shapes.STATE_FIELDS, with_vectors=False)
            found.update((str(record.id), shapes.state(record)) for record in records)
        return found

    def scroll(self, name: str) -> Iterator[PointState]:
        """Yield every point, tombstones too, in order of id and in pages, so that memory stays constant."""
        offset: Any = None
        while True:
            with _translated(name):
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
        with _translated(name):
            self._client.delete(name, selector, wait=True)

    def count(self, name: str) -> int:
        """Return the number of living points."""
        with _translated(name):
            return self._client.count(name, models.Filter(must_not=[shapes.BURIED]), exact=True).count

    def ping(self) -> None:
        """Return when the index can serve, raise Unavailable when not."""
        with _translated("(none)"):
            self._client.get_collections()

    def title(self) -> str:
        """Return what the server calls itself and its version; the embedded engine says that it is one.

        Raises:
            Unavailable: It did not answer.
        """
        with _translated("(none)"):
            info = self._client.info()
        return f"{info.title} {info.version}"

    def close(self) -> None:
        """Release connections."""
        self._client.close()

    def _create(self, name: str, *, dimension: int) -> None:
        """Create a collection; if another worker was faster, theirs is as good."""
        try:
            with _translated(name):
                self._client.create_collection(
                    name,
                    vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
                    sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                )
        except (Conflict, InvalidInput):  # servers before 1.10 say 400 where newer ones say 409
            with _translated(name):
                if not self._client.collection_exists(name):
                    raise

    def _upsert(self, name: str, items: list[tuple[int, models.PointStruct]]) -> None:
        """Write conditionally: one filter per generation, older generations first, so that the newest stays."""
        for generation in sorted({generation for generation, _ in items}):
            older = models.Filter(must=[shapes.older_than(generation)])
            structs = [struct for its_generation, struct in items if its_generation == generation]
            for batch in _batches(structs, BATCH_POINTS):
                with _translated(name):
                    self._client.upsert(name, list(batch), wait=True, update_filter=older)


class QdrantSearcher:
    """`VectorSearcher` on an asynchronous client, which it closes. Belongs to one event loop."""

    def __init__(self, client: AsyncQdrantClient, *, max_concurrency: int = 4) -> None:
        self._client = client
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
        with _translated(name):
            async with self._slots:
                responses = await self._client.query_batch_points(name, list(requests))
        return [response.points for response in responses]

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of living points; absent and buried ones are left out."""
        found: dict[str, str] = {}
        for batch in _batches(point_ids, BATCH_IDS):
            with _translated(name):
                async with self._slots:
                    records = await self._client.retrieve(name, list(batch), with_payload=["text"], with_vectors=False)
            found.update((str(each.id), each.payload["text"]) for each in records if each.payload)
        return found

    async def ping(self) -> None:
        """Return when the index can serve, raise Unavailable when not."""
        with _translated("(none)"):
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


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Raise what qdrant-client raises as Forefill's errors."""
    try:
        yield
    except UnexpectedResponse as error:
        raise _from_status(error.status_code or 500, _message(error), name=name) from error
    except ResourceExhaustedResponse as error:
        raise Unavailable(
            f"Qdrant is busy: {error.message}", service="qdrant", retry_after_s=error.retry_after_s
        ) from error
    except ResponseHandlingException as error:
        raise Unavailable(f"Qdrant did not answer: {error.source!r}", service="qdrant") from error
    except (ValueError, AssertionError) as error:
        if "not found" in str(error):  # how local mode says 404
            raise NotFound(f"Collection {name!r}: {error}") from error
        raise Unavailable(f"Qdrant's answer cannot be read: {error}", service="qdrant") from error


def _from_status(status: int, message: str, *, name: str) -> ForefillError:
    if status in (401, 403):
        return ConfigurationError(f"Qdrant refuses the API key: {message}")
    if status in (408, 429) or status >= 500:
        return Unavailable(f"Qdrant answered {status}: {message}", service="qdrant")
    kinds: dict[int, type[ForefillError]] = {404: NotFound, 409: Conflict, 413: TooLarge}
    return kinds.get(status, InvalidInput)(f"Collection {name!r}: {message}")


def _message(error: UnexpectedResponse) -> str:
    """Return the sentence inside Qdrant's error, or the start of whatever else came."""
    try:
        return str(orjson.loads(error.content)["status"]["error"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return error.content[:200].decode(errors="replace")
