"""The vector index as Forefill needs it: conditional writes that a late worker cannot win, and hybrid search.

A point is *alive* (vectors, text, payload) or *buried* (a tombstone: an id and a generation, no vectors, never found).
Every write carries the document's generation and takes effect only where the stored generation is lower, or where
nothing is stored: the comparison is `<`, never `!=`, and the index makes it, not the caller. So writes may come twice,
late or out of order, and the highest generation wins. A write that loses is no error: the index says nothing, and who
must know asks for `states`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from pipeline.errors import InvalidInput
from pipeline.retrieval.embedding import Embedding

DENSE = "dense"
"""Name of the dense vector: cosine similarity."""
SPARSE = "sparse"
"""Name of the sparse vector: dot product, weighted by inverse document frequency."""
RRF_K = 2
"""Constant of the reciprocal rank fusion: rank r (from 0) of one of the two lists adds 1 / (r + 2)."""
GENERATION_LIMIT = 2**53
"""Generations are compared as 64-bit floats by the index: whole numbers are exact below this."""


@dataclass(frozen=True, slots=True)
class Point:
    """One passage, alive, with everything that search and a cache miss need."""

    point_id: str
    """From `point_id`: a UUID."""
    document_id: str
    ordinal: int
    """Position of the passage in its document, from 0."""
    generation: int
    """The document's generation this was written for; 0 or more, below 2**53."""
    passage_key: str
    """32 lower-case hex characters; the text hashes to it."""
    text: str
    metadata: Mapping[str, JsonValue]
    """The document's metadata; what `where` filters on."""
    token_counts: Mapping[str, int]
    """Fingerprint of a spec to number of token ids. Hints: the entry decides."""
    embedding: Embedding


@dataclass(frozen=True, slots=True)
class PointMove:
    """An unchanged passage in a newer generation of its document: payload moves on, vectors and text stay."""

    point_id: str
    ordinal: int
    generation: int
    metadata: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What replaces a point that its document no longer has."""

    point_id: str
    document_id: str
    generation: int
    """Generation of the document that does not have this passage."""


@dataclass(frozen=True, slots=True)
class PointState:
    """What is stored under a point id, without vectors and text."""

    point_id: str
    document_id: str
    generation: int
    buried: bool


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage that a search found."""

    point_id: str
    document_id: str
    ordinal: int
    generation: int
    passage_key: str
    score: float
    """Fused score, at most 1; comparable within one search only."""
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    """Of its document; may be empty where a search did not ask for it."""
    text: str | None = None
    """The passage's text, where the search brought it along; None where the index is to be asked for it."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a search passes over, so that what an answer may not hold takes up no places in it."""

    copies: Mapping[str, str] = field(default_factory=dict)
    """Passage key to the id of the only point with it that may be found."""
    outdated: Mapping[str, int] = field(default_factory=dict)
    """Document id to the lowest generation of it that may be found."""


NOTHING = LeftOut()


class VectorIndexWriter(Protocol):
    """What workers and operators do. Synchronous; every write returns when the index has applied it.

    Raises, all methods: NotFound (no such collection), InvalidInput (the index refuses the data), Unavailable (no
    answer; the write may or may not have happened, and repeating it is safe).
    """

    def ensure_collection(self, name: str, *, dimension: int) -> None:
        """Create a collection with its payload indexes, or complete one that was left half made.

        Raises:
            Conflict: It exists with another shape.
        """

    def drop_collection(self, name: str) -> None:
        """Remove a collection with everything in it; nothing happens if it does not exist."""

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Store points whose id is unknown or stored with a lower generation, tombstones included."""

    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        """Move living points with a lower generation on; absent and buried ones stay as they are."""

    def bury(self, name: str, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where nothing, or a lower generation, is stored."""

    def states(self, name: str, point_ids: Sequence[str]) -> dict[str, PointState]:
        """Return what is stored under these ids; absent ones are left out."""

    def scroll(self, name: str) -> Iterator[PointState]:
        """Yield every point, tombstones too, in order of id and in pages, so that memory stays constant."""

    def purge_buried(self, name: str, *, before_ms: int) -> None:
        """Remove tombstones written before a moment, in milliseconds since 1970."""

    def count(self, name: str) -> int:
        """Return the number of living points."""

    def ping(self) -> None:
        """Return when the index can serve, raise Unavailable when not."""

    def close(self) -> None:
        """Release connections."""


class VectorSearcher(Protocol):
    """What the read path does. Asynchronous; raises as `VectorIndexWriter` does."""

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
        """Return the nearest living passages, best first: both vectors searched, ranks fused.

        Args:
            name: Collection.
            embedding: Of the question. Without sparse terms only the dense vector counts.
            limit: Number of hits at most, 1 or more.
            where: Metadata keys (top level, taken literally) and the value each must have; a list means any of these.
                Values are text, numbers or booleans; equal numbers are equal, 2023 and 2023.0 (see `conditions`).
            score_threshold: Lowest fused score.
            left_out: Points that are not there for this search.
            with_metadata: Whether hits must carry their documents' metadata, up to 64 KiB each.

        Returns:
            Hits by falling score; equal scores in order of point id, so that equal searches have equal answers.
        """

    async def search_batch(
        self,
        name: str,
        embeddings: Sequence[Embedding],
        *,
        limit: int,
        where: Mapping[str, JsonValue] | None = None,
        score_threshold: float | None = None,
    ) -> list[list[Hit]]:
        """Search for several questions in one call; answers in their order."""

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of living points; absent and buried ones are left out."""

    async def ping(self) -> None:
        """Return when the index can serve, raise Unavailable when not."""

    async def close(self) -> None:
        """Release connections."""


def prefetch_limit(limit: int) -> int:
    """Return how many candidates each of the two vectors contributes to a fused search for `limit` hits."""
    return max(50, 2 * limit)


def check_generations(items: Sequence[Point] | Sequence[PointMove] | Sequence[Tombstone]) -> None:
    """Refuse generations that the index cannot compare exactly, and one id twice in one generation.

    Raises:
        InvalidInput: Naming the point.
    """
    seen: set[tuple[str, int]] = set()
    for item in items:
        if not 0 <= item.generation < GENERATION_LIMIT:
            raise InvalidInput(
                f"Point {item.point_id}: generation {item.generation} is out of range", item=item.point_id
            )
        if (item.point_id, item.generation) in seen:
            raise InvalidInput(f"Point {item.point_id} comes twice in generation {item.generation}", item=item.point_id)
        seen.add((item.point_id, item.generation))
