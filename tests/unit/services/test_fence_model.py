"""The fence protocol, every interleaving: real publishers, one call at a time, over an index in memory.

What SQL, the index and the cache hold is checked after every single call. Since a holder may stand still for ever in
any state, a crash at any point is among the interleavings, and so is a zombie that goes on after its rescue. The second
half breaks the protocol on purpose: a model that cannot fail proves nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from pipeline.documents.passages import passage_key
from pipeline.documents.publication import DocumentWork, PublishedDocument
from pipeline.retrieval.memory import MemoryVectorIndex
from pipeline.retrieval.points import point_id
from pipeline.retrieval.vector_index import Point, PointMove, Tombstone
from pipeline.services.publishing import Prepared, Publisher
from pipeline.tokenizers import TokenSpec, load_spec
from tests.support.fence_world import COLLECTION, Cast, Holder, LineSplitter, StoredPoint, World, embedding_of
from tests.support.interleavings import Exploration, explore
from tests.support.publication_twin import DOCUMENT_ID, DocumentRows, Lease, PublicationRules

_MOST_STATES = 200_000


@dataclass(frozen=True, slots=True)
class Change:
    """The client stores a new head, by one of the queues. Jobs of two queues run beside each other."""

    text: str | None
    queue: str = "interactive"


@dataclass(frozen=True, slots=True)
class AddSpec:
    """An operator has the corpus filled for one spec more."""


Event = Change | AddSpec


class Model:
    """What may happen next in a world, and what must hold in it."""

    def __init__(self, cast: Cast, *, script: Sequence[Event], rescues: int) -> None:
        self._cast = cast
        self._script = script
        self._rescues = rescues

    def explore(self) -> Exploration[World]:
        return explore(World(), successors=self.successors, wrong=self.wrong, max_states=_MOST_STATES)

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        if world.events < len(self._script):
            yield self._happens(self._script[world.events], replace(world, events=world.events + 1))
        lease = world.rows.lease(world.rows.queue)
        if world.rows.is_behind and not lease.running:
            yield _claim(world)
        for queue, held in world.rows.leases:
            if held.running and world.rescues < self._rescues:
                freed = world.rows.with_lease(queue, replace(held, fence=held.fence + 1, running=False))
                yield f"rescue {queue}", replace(world, rows=freed, rescues=world.rescues + 1)
        for holder in world.holders:
            yield self._cast.take_step(world, holder)

    def wrong(self, world: World, is_end: bool) -> str | None:  # noqa: FBT001  # the explorer's signature
        rows = world.rows
        if is_end and rows.is_behind:
            return "the head can never be published"
        if is_end and rows.text is not None and rows.ledger != {spec.spec_id for spec in self._filled(world)}:
            return "not every spec was filled"
        return _wrong_in_index(world) or self._wrong_in_cache(world)

    def _wrong_in_cache(self, world: World) -> str | None:
        active = self._cast.specs[0].fingerprint
        if any((active, passage_key(point.text)) not in world.cache for point in world.index if not point.buried):
            return "a point can be found before its entry was written"
        written = [spec.fingerprint for spec in self._cast.specs if spec.spec_id in world.rows.ledger]
        if any((fingerprint, span.key) not in world.cache for fingerprint in written for span in world.rows.manifest):
            return "the ledger names an entry that was not written"
        return None

    def _filled(self, world: World) -> Sequence[TokenSpec]:
        return self._cast.specs[: world.rows.spec_count]

    def _happens(self, event: Event, world: World) -> tuple[str, World]:
        match event:
            case Change(text, queue):
                return f"change to {text!r}", replace(world, rows=world.rows.accept(text, queue=queue))
            case AddSpec():
                return "add a spec", replace(world, rows=replace(world.rows, spec_count=world.rows.spec_count + 1))


def _claim(world: World) -> tuple[str, World]:
    queue = world.rows.queue
    fence = world.rows.lease(queue).fence + 1
    holder = Holder(queue, fence, world.rows.spec_count)
    rows = world.rows.with_lease(queue, Lease(fence, running=True))
    return f"claim {holder}", replace(world, rows=rows, holders=world.holders | {holder})


def _wrong_in_index(world: World) -> str | None:
    rows = world.rows
    alive = {point for point in world.index if not point.buried}
    if rows.generation and not rows.is_behind and alive != _points_of(rows.text, generation=rows.generation):
        return f"generation {rows.generation} is published, but alive are {sorted(map(_named, alive))}"
    if any(point.generation > rows.generation for point in alive):
        return "a point is newer than the head"
    served = {span.key for span in rows.manifest}
    if any(point.generation == rows.served and passage_key(point.text) not in served for point in alive):
        return "a point of the served generation is not in its manifest"
    return None


def _points_of(text: str | None, *, generation: int) -> set[StoredPoint]:
    """Return what must be alive when a text is served, worked out without the publisher."""
    return {
        StoredPoint(
            point_id(COLLECTION, document_id=DOCUMENT_ID, passage_key=passage.key.hex(), occurrence=passage.occurrence),
            generation,
            buried=False,
            text=passage.text,
            ordinal=ordinal,
            dense=embedding_of(passage.text).dense.tobytes(),
        )
        for ordinal, passage in enumerate(LineSplitter().split(text or ""))
    }


def _named(point: StoredPoint) -> str:
    return f"{point.text} of generation {point.generation}"


@pytest.fixture(scope="module")
def specs() -> list[TokenSpec]:
    return [load_spec("o200k_base/plain"), load_spec("cl100k_base/plain")]


def _explored(cast: Cast, script: Sequence[Event], *, rescues: int) -> Exploration[World]:
    return Model(cast, script=script, rescues=rescues).explore()


COMES_BACK = (Change("A\nB"), Change("B\nC"), Change("A\nC"))
TWO_QUEUES = (Change("A\nB"), Change("B\nC", "bulk"), Change(None))
STAYS = (Change("A"), Change("A\nB"), Change("A"))
DELETED_BETWEEN = (Change("A\nB"), Change(None), Change("A\nC"))

HISTORIES: dict[str, tuple[int, Sequence[Event]]] = {
    "a passage comes back": (1, COMES_BACK),
    "a passage stays": (1, STAYS),
    "two queues": (1, TWO_QUEUES),
    "two workers die": (2, (Change("A"), Change("B"))),
    "deleted and made again": (1, DELETED_BETWEEN),
    "a passage that stands twice": (1, (Change("A\nA"), Change("B\nA"), Change("A\nA"))),
    "nothing but the metadata": (1, (Change("A\nB"), Change("A\nB"))),
    "a spec is added meanwhile": (1, (Change("A\nB"), AddSpec(), Change("B\nC"))),
}
"""Changes, and how many holders may die or fall asleep and be rescued."""

LONG_HISTORIES: dict[str, tuple[int, Sequence[Event]]] = {
    "a passage comes back by another queue": (1, (Change("A\nB"), Change("B\nC", "bulk"), Change("A\nC"))),
    "the same text after a deletion, two workers die": (2, (Change("A"), Change(None), Change("A"))),
    "four changes by two queues": (1, (Change("A"), Change("B"), Change("A", "bulk"), Change("B"))),
}


@pytest.mark.parametrize("history", HISTORIES)
def test_only_the_newest_generation_is_alive_in_every_order_of_steps(specs: list[TokenSpec], history: str) -> None:
    rescues, script = HISTORIES[history]
    explored = _explored(Cast(specs), script, rescues=rescues)
    assert explored.violation is None, str(explored.violation)
    assert explored.states > 1_000, "the model has become smaller than its claim"


@pytest.mark.long
@pytest.mark.parametrize("history", LONG_HISTORIES)
def test_only_the_newest_generation_is_alive_in_longer_histories(specs: list[TokenSpec], history: str) -> None:
    rescues, script = LONG_HISTORIES[history]
    explored = _explored(Cast(specs), script, rescues=rescues)
    assert explored.violation is None, str(explored.violation)


class _BrokenIndex(MemoryVectorIndex):
    """Lets a test write without the conditions."""

    def put(self, name: str, point: Point) -> None:
        self._get(name).buried.pop(point.point_id, None)
        self._get(name).alive[point.point_id] = point

    def stored(self, name: str, identity: str) -> int | None:
        state = self.states(name, [identity]).get(identity)
        return None if state is None else state.generation


class _UpsertsAlways(_BrokenIndex):
    def upsert(self, name: str, points: Sequence[Point]) -> None:
        for point in points:
            self.put(name, point)


class _UpsertsOverAnyOther(_BrokenIndex):
    def upsert(self, name: str, points: Sequence[Point]) -> None:
        for point in points:
            if self.stored(name, point.point_id) != point.generation:
                self.put(name, point)


class _AdvancesAlways(_BrokenIndex):
    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        alive = self.living(name)
        for move in moves:
            if move.point_id in alive:
                self.put(name, replace(alive[move.point_id], generation=move.generation, ordinal=move.ordinal))


class _AdvancesTombstones(_BrokenIndex):
    def advance(self, name: str, moves: Sequence[PointMove]) -> None:
        super().advance(name, moves)
        for move in moves:
            super().bury(name, [Tombstone(move.point_id, DOCUMENT_ID, move.generation)])


class _DeletesPlainly(_BrokenIndex):
    def bury(self, name: str, tombstones: Sequence[Tombstone]) -> None:
        for stone in tombstones:
            if (self.stored(name, stone.point_id) or 0) < stone.generation:
                self._get(name).alive.pop(stone.point_id, None)


class _BuriesAlways(_BrokenIndex):
    def bury(self, name: str, tombstones: Sequence[Tombstone]) -> None:
        for stone in tombstones:
            self._get(name).alive.pop(stone.point_id, None)
            self._get(name).buried.pop(stone.point_id, None)
        super().bury(name, tombstones)


class _RecordsNoIntents(PublicationRules):
    def record_intents(
        self, rows: DocumentRows, work: DocumentWork, points: Sequence[str], *, queue: str, fence: int
    ) -> tuple[DocumentRows, bool]:
        _, unmoved = super().record_intents(rows, work, points, queue=queue, fence=fence)
        return rows, unmoved


class _IntendsForOldHeads(PublicationRules):
    def record_intents(
        self, rows: DocumentRows, work: DocumentWork, points: Sequence[str], *, queue: str, fence: int
    ) -> tuple[DocumentRows, bool]:
        self.check_fence(rows, queue=queue, fence=fence)
        return replace(rows, intents=rows.intents | {(work.generation, frozenset(points))}), True


class _ServesOldHeads(PublicationRules):
    def store_published(
        self, rows: DocumentRows, published: PublishedDocument, *, queue: str, fence: int
    ) -> DocumentRows:
        as_head = replace(rows, generation=published.work.generation)
        served = super().store_published(as_head, published, queue=queue, fence=fence)
        return replace(served, generation=rows.generation)


class _ForgetsAllIntentsAtOnce(PublicationRules):
    def record_intents(
        self, rows: DocumentRows, work: DocumentWork, points: Sequence[str], *, queue: str, fence: int
    ) -> tuple[DocumentRows, bool]:
        return super().record_intents(replace(rows, intents=frozenset()), work, points, queue=queue, fence=fence)


class _FillsLast(Publisher):
    def _fill(self, documents: Sequence[Prepared], specs: Sequence[TokenSpec]) -> None:
        pass

    def _settle(self, mine: Sequence[Prepared]) -> None:
        super()._fill(mine, self._specs)
        super()._settle(mine)


class _RetiresOnlyWhatWasServed(Publisher):
    def _tombstones(self, document: Prepared) -> list[Tombstone]:
        forgetful = replace(document.work, older_points=frozenset())
        return super()._tombstones(replace(document, work=forgetful))


class _TrustsTheManifest(Publisher):
    def _points_to_store(self, documents: Sequence[Prepared], _moves: Sequence[PointMove]) -> list[Point]:
        return [point for document in documents for point in self._points(document, document.embeddings)]


BROKEN_INDEXES = [
    _UpsertsAlways,
    _UpsertsOverAnyOther,
    _AdvancesAlways,
    _AdvancesTombstones,
    _DeletesPlainly,
    _BuriesAlways,
]
BROKEN_RULES = [_RecordsNoIntents, _IntendsForOldHeads, _ServesOldHeads, _ForgetsAllIntentsAtOnce]
BROKEN_PUBLISHERS = [_FillsLast, _RetiresOnlyWhatWasServed, _TrustsTheManifest]


def _is_found_out(cast: Cast) -> bool:
    histories = ((0, TWO_QUEUES), (1, STAYS), (1, COMES_BACK), (1, DELETED_BETWEEN))
    return any(_explored(cast, script, rescues=rescues).violation is not None for rescues, script in histories)


@pytest.mark.parametrize("index", BROKEN_INDEXES)
def test_an_index_without_one_of_its_conditions_is_found_out(
    specs: list[TokenSpec], index: type[MemoryVectorIndex]
) -> None:
    assert _is_found_out(Cast(specs, index=index))


@pytest.mark.parametrize("rules", BROKEN_RULES)
def test_a_ledger_without_one_of_its_rules_is_found_out(specs: list[TokenSpec], rules: type[PublicationRules]) -> None:
    assert _is_found_out(Cast(specs, rules=rules()))


@pytest.mark.parametrize("publisher", BROKEN_PUBLISHERS)
def test_a_publisher_that_leaves_out_a_step_is_found_out(specs: list[TokenSpec], publisher: type[Publisher]) -> None:
    assert _is_found_out(Cast(specs, publisher=publisher))
