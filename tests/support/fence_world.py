"""A world in which real `Publisher`s work on one document, one outside call at a time.

A holder of a job is a log of the answers it got so far. Its next step runs the publisher from the beginning, answers
from the log, makes one new call on a copy of the world, and stops before the call after that. So every interleaving of
single calls can be tried: a crash is a holder that is never run again, a zombie one that goes on after its rescue.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from pipeline.documents.passages import Passage, passages_of
from pipeline.documents.publication import DocumentWork, PublishedDocument
from pipeline.documents.splitting import Splitter
from pipeline.errors import StaleFence
from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.memory import MemoryVectorIndex
from pipeline.retrieval.vector_index import Point, PointMove, PointState, Tombstone
from pipeline.services.publishing import Prepared, Publisher, SpecSetChangedError
from pipeline.token_cache import Entry
from pipeline.tokenizers import TokenSpec
from tests.support.publication_twin import DOCUMENT_ID, DOCUMENT_PK, DocumentRows, PublicationRules

COLLECTION = "model.1"
DIMENSION = 2
T = TypeVar("T", bound=Hashable)


class LineSplitter(Splitter):
    """Every line is a passage."""

    def split(self, text: str) -> list[Passage]:
        """Cut at line breaks."""
        ends = [place for place, character in enumerate(text) if character == "\n"] + [len(text)]
        return passages_of(text, spans=zip([0, *(end + 1 for end in ends)], ends, strict=False))


class NamedEmbedder:
    """Vectors that tell by which text they were made."""

    name = "named"
    dimension = DIMENSION

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Give each text its own direction."""
        return [embedding_of(text) for text in texts]

    def close(self) -> None:
        """Hold nothing."""


def embedding_of(text: str) -> Embedding:
    """Return the vectors of a text."""
    angle = sum(text.encode()) / 1000
    return Embedding(np.array([np.cos(angle), np.sin(angle)], dtype=np.float32), SparseVector((len(text),), (1.0,)))


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """What the index holds under one id, as a value."""

    point_id: str
    generation: int
    buried: bool
    text: str = ""
    ordinal: int = 0
    dense: bytes = b""


@dataclass(frozen=True, slots=True)
class Holder:
    """A worker that claimed a job and was not told that it is over."""

    queue: str
    fence: int
    spec_count: int
    """Specs filled when the job began."""
    answers: tuple[Hashable, ...] = ()

    def __str__(self) -> str:
        return f"{self.queue}#{self.fence}"


@dataclass(frozen=True, slots=True)
class World:
    """Everything there is, as one value."""

    rows: DocumentRows = field(default_factory=DocumentRows)
    index: frozenset[StoredPoint] = frozenset()
    cache: frozenset[tuple[str, bytes]] = frozenset()
    """Fingerprint and passage key of every entry."""
    holders: frozenset[Holder] = frozenset()
    events: int = 0
    """How many of the script's events have happened."""
    rescues: int = 0


class _Pause(BaseException):
    """Ends a run before its second new call; no `except Exception` may hold it up."""


@dataclass(slots=True)
class Ports:
    """The outside of one publisher: answers from its log, then one new call, then nothing more."""

    holder: Holder
    world: World
    index: MemoryVectorIndex
    rules: PublicationRules
    specs: Sequence[TokenSpec]
    answers: list[Hashable] = field(default_factory=list)
    step: str = ""
    """Name of the new call; empty while there was none."""
    _position: int = 0
    _known_specs: int = 0

    def __post_init__(self) -> None:
        self.answers = list(self.holder.answers)
        self._known_specs = self.holder.spec_count

    def call(self, name: str, work: Callable[[], T]) -> T:
        """Answer from the log, or do the work if it is the first that is new."""
        if self._position == len(self.answers):
            if self.step:
                raise _Pause
            self.step = name
            self.answers.append(work())
        answer = self.answers[self._position]
        self._position += 1
        return answer  # type: ignore[return-value]  # what this very call put there

    def read_work(self) -> DocumentWork | None:
        """Read the document in three looks, between which others may write."""
        queue = self.holder.queue
        head = self.call("read head", lambda: self.world.rows.head_of(queue))
        if head is None:
            return None
        served = self.call("read manifest", lambda: self.world.rows.manifest)
        older = self.call("read intents", lambda: self.world.rows.older_points(head.generation))
        return DocumentWork(
            pk=DOCUMENT_PK,
            id=DOCUMENT_ID,
            generation=head.generation,
            text=head.text,
            attributes="{}",
            attempts=0,
            accepted_at=0,
            served=served,
            older_points=older,
        )

    def write(self, fingerprint: str, pairs: Iterable[tuple[bytes, Entry]], /) -> int:
        """Store one batch of entries."""
        keys = [key for key, _ in pairs]
        return self.call("write entries", lambda: self._store(fingerprint, keys)) if keys else 0

    def _store(self, fingerprint: str, keys: Sequence[bytes]) -> int:
        self.world = replace(self.world, cache=self.world.cache | {(fingerprint, key) for key in keys})
        return len(keys)

    def record_intents(self, points: Mapping[DocumentWork, Sequence[str]]) -> set[int]:
        """Step 1 for one document."""
        return {work.pk for work, ids in points.items() if self.call("intend", partial(self._intend, work, ids))}

    def _intend(self, work: DocumentWork, points: Sequence[str]) -> bool:
        queue, fence = self.holder.queue, self.holder.fence
        rows, unmoved = self.rules.record_intents(self.world.rows, work, points, queue=queue, fence=fence)
        self.world = replace(self.world, rows=rows)
        return unmoved

    def settle(self, published: Sequence[PublishedDocument]) -> None:
        """Step 5 for at most one document."""
        for document in published:
            known = self._known_specs
            self._known_specs = self.call("settle", partial(self._serve, document, known))
            if self._known_specs != known:
                raise SpecSetChangedError(self.specs[: self._known_specs])

    def _serve(self, document: PublishedDocument, known_specs: int) -> int:
        queue, fence = self.holder.queue, self.holder.fence
        self.rules.check_fence(self.world.rows, queue=queue, fence=fence)
        if self.world.rows.spec_count == known_specs:
            rows = self.rules.store_published(self.world.rows, document, queue=queue, fence=fence)
            self.world = replace(self.world, rows=rows)
        return self.world.rows.spec_count

    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        """Move points on, one by one."""
        for move in moves:
            self.call("advance", partial(self.index.advance, name, [move]))

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        """Store points, one by one."""
        for point in points:
            self.call(f"upsert {point.text}", partial(self.index.upsert, name, [point]))

    def bury(self, name: str, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones, one by one."""
        for stone in tombstones:
            self.call("bury", partial(self.index.bury, name, [stone]))

    def states(self, name: str, point_ids: Sequence[str]) -> dict[str, PointState]:
        """Look at all these points at once."""
        found = self.call("look", lambda: frozenset(self.index.states(name, point_ids).values()))
        return {state.point_id: state for state in found}


@dataclass(slots=True)
class Cast:
    """Which implementations play: the real ones, or one that is broken on purpose."""

    specs: Sequence[TokenSpec]
    index: type[MemoryVectorIndex] = MemoryVectorIndex
    rules: PublicationRules = field(default_factory=PublicationRules)
    publisher: type[Publisher] = Publisher
    _points: dict[StoredPoint, Point] = field(default_factory=dict)
    _prepared: dict[tuple[DocumentWork, int], Prepared] = field(default_factory=dict)

    def take_step(self, world: World, holder: Holder) -> tuple[str, World]:
        """Let a holder make its next call; return the call's name and the world after it."""
        ports = Ports(holder, world, self._open_index(world), self.rules, self.specs)
        is_over = True
        try:
            self._publish(ports)
        except _Pause:
            is_over = False
        except StaleFence:
            ports.step += " (refused)"
        others = ports.world.holders - {holder}
        after = replace(ports.world, index=self._close_index(ports.index), holders=others)
        if not is_over:
            after = replace(after, holders=others | {replace(holder, answers=tuple(ports.answers))})
        elif after.rows.lease(holder.queue).fence == holder.fence:
            lease = replace(after.rows.lease(holder.queue), running=False)
            after = replace(after, rows=after.rows.with_lease(holder.queue, lease))
        return f"{holder} {ports.step}", after

    def _publish(self, ports: Ports) -> None:
        work = ports.read_work()
        if work is None:
            return
        publisher = self.publisher(
            collection=COLLECTION,
            specs=self.specs[: ports.holder.spec_count],
            splitter=LineSplitter(),
            embedder=NamedEmbedder(),
            cache=ports,
            index=ports,  # type: ignore[arg-type]  # the four calls that publishing makes
            ledger=ports,
        )
        for _step in publisher.steps([self._prepare(publisher, work, ports.holder.spec_count)]):
            pass

    def _prepare(self, publisher: Publisher, work: DocumentWork, spec_count: int) -> Prepared:
        """Prepare a piece of work once; it depends on nothing else, and the copy protects it from being filled."""
        known = self._prepared.get((work, spec_count))
        if known is None:
            (known,), failures = publisher.prepare([work])
            assert not failures
            self._prepared[work, spec_count] = known
        return replace(known, encoded=dict(known.encoded), embeddings=dict(known.embeddings))

    def _open_index(self, world: World) -> MemoryVectorIndex:
        index = self.index(clock_ms=lambda: 0)
        index.ensure_collection(COLLECTION, dimension=DIMENSION)
        index.upsert(COLLECTION, [self._points[stored] for stored in world.index if not stored.buried])
        stones = [Tombstone(s.point_id, DOCUMENT_ID, s.generation) for s in world.index if s.buried]
        MemoryVectorIndex.bury(index, COLLECTION, stones)
        return index

    def _close_index(self, index: MemoryVectorIndex) -> frozenset[StoredPoint]:
        return frozenset(self._stored(index))

    def _stored(self, index: MemoryVectorIndex) -> Iterator[StoredPoint]:
        alive = index.living(COLLECTION)
        for state in index.scroll(COLLECTION):
            if state.buried:
                yield StoredPoint(state.point_id, state.generation, buried=True)
                continue
            point = alive[state.point_id]
            dense = point.embedding.dense.tobytes()
            stored = StoredPoint(
                point.point_id, point.generation, buried=False, text=point.text, ordinal=point.ordinal, dense=dense
            )
            self._points[stored] = point
            yield stored
