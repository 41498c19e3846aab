"""One suite over every vector index: in memory, qdrant-client's local mode, and the embedded owner process."""

import asyncio
import tempfile
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.memory import MemoryVectorIndex
from pipeline.retrieval.points import point_id
from pipeline.retrieval.qdrant import QdrantSearcher, QdrantWriter
from pipeline.retrieval.vector_index import (
    Hit,
    LeftOut,
    Point,
    PointMove,
    PointState,
    Tombstone,
    VectorIndexWriter,
    VectorSearcher,
)
from tests.support.processes import Processes
from tests.support.qdrant import QdrantOwner

# Local mode filters without indexes and says so; the indexes are for the others.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

DIMENSION = 8
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Index:
    """One implementation with an empty collection of its own."""

    kind: str
    writer: VectorIndexWriter
    searcher: VectorSearcher
    name: str
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def search(self, query: Embedding, **options: Any) -> list[Hit]:
        return self.run(self.searcher.search(self.name, query, **{"limit": 10, "with_metadata": True, **options}))

    def found(self, query: Embedding, **options: Any) -> list[str]:
        return [hit.document_id for hit in self.search(query, **options)]

    def state(self, of: str) -> PointState | None:
        return self.writer.states(self.name, [of]).get(of)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="module")
def owner() -> Iterator[QdrantOwner]:
    with tempfile.TemporaryDirectory(prefix="ff-q-") as folder, Processes(Path(folder)) as processes:
        yield QdrantOwner(processes, Path(folder) / "data").start()


@pytest.fixture(params=["memory", "local", "owner"])
def index(request: pytest.FixtureRequest, runner: asyncio.Runner) -> Iterator[Index]:
    writer: VectorIndexWriter
    searcher: VectorSearcher
    match request.param:
        case "memory":
            writer = MemoryVectorIndex()
            searcher = writer.searcher()
        case "local":
            writer, searcher = local_mode()
        case _:
            started: QdrantOwner = request.getfixturevalue("owner")
            writer, searcher = started.writer(), started.searcher()
    name = f"c-{uuid4().hex}"
    writer.ensure_collection(name, dimension=DIMENSION)
    yield Index(request.param, writer, searcher, name, runner)
    writer.drop_collection(name)
    writer.close()
    runner.run(searcher.close())


def local_mode() -> tuple[QdrantWriter, QdrantSearcher]:
    """qdrant-client in memory; both clients over the same collections."""
    client, async_client = QdrantClient(":memory:"), AsyncQdrantClient(":memory:")
    vars(async_client._client)["collections"] = vars(client._client)["collections"]
    return QdrantWriter(client), QdrantSearcher(async_client)


def embedding(seed: int, *, terms: tuple[int, ...] = ()) -> Embedding:
    dense = np.random.default_rng(seed).normal(size=DIMENSION).astype(np.float32)
    return Embedding(dense, SparseVector(terms, tuple(1.0 for _ in terms)))


def near(query: Embedding, *, distance: float, seed: int) -> Embedding:
    dense = query.dense + distance * embedding(seed).dense
    return Embedding(dense.astype(np.float32), SparseVector((), ()))


def point(document_id: str, *, generation: int = 1, of: Embedding | None = None, **changes: Any) -> Point:
    key = document_id.encode().hex().rjust(32, "0")
    made = Point(
        point_id=point_id("corpus", document_id=document_id, passage_key="0" * 32, occurrence=0),
        document_id=document_id,
        ordinal=0,
        generation=generation,
        passage_key=key,
        text=f"text of {document_id} in generation {generation}",
        metadata={},
        token_counts={"f" * 32: 7},
        embedding=of or embedding(1),
    )
    return replace(made, **changes)


def tombstone(of: Point, *, generation: int) -> Tombstone:
    return Tombstone(of.point_id, of.document_id, generation)


def move(of: Point, *, generation: int, ordinal: int = 5, **metadata: Any) -> PointMove:
    return PointMove(of.point_id, ordinal, generation, metadata)


def test_a_point_comes_back_whole(index: Index) -> None:
    stored = point("a", ordinal=3, metadata={"lang": "en", "deep": {"list": [1, None, "x"]}})
    index.writer.upsert(index.name, [stored])
    (hit,) = index.search(stored.embedding)
    assert hit == Hit(
        stored.point_id, "a", 3, 1, stored.passage_key, hit.score, {"lang": "en", "deep": {"list": [1, None, "x"]}}
    )
    assert index.run(index.searcher.texts(index.name, [stored.point_id])) == {stored.point_id: stored.text}


def test_a_newer_generation_replaces_everything(index: Index) -> None:
    old, new = point("a", of=embedding(1), metadata={"old": 1}), point("a", generation=2, of=embedding(2), text="new")
    index.writer.upsert(index.name, [old])
    index.writer.upsert(index.name, [new])
    (hit,) = index.search(embedding(2))
    assert (hit.generation, hit.metadata) == (2, {})
    assert index.run(index.searcher.texts(index.name, [new.point_id])) == {new.point_id: "new"}


@pytest.mark.parametrize("late", [1, 2])
def test_a_late_writer_of_an_older_or_equal_generation_changes_nothing(index: Index, late: int) -> None:
    index.writer.upsert(index.name, [point("a", generation=2, text="kept")])
    index.writer.upsert(index.name, [point("a", generation=late, text="late", metadata={"late": True})])
    (hit,) = index.search(embedding(1))
    assert (hit.generation, hit.metadata) == (2, {})
    assert list(index.run(index.searcher.texts(index.name, [hit.point_id])).values()) == ["kept"]


def test_one_call_may_hold_several_generations_and_the_newest_stays(index: Index) -> None:
    index.writer.upsert(index.name, [point("a", generation=3), point("a", generation=2), point("b", generation=7)])
    assert {hit.document_id: hit.generation for hit in index.search(embedding(1))} == {"a": 3, "b": 7}


def test_one_id_twice_in_one_generation_is_refused(index: Index) -> None:
    with pytest.raises(InvalidInput, match="twice"):
        index.writer.upsert(index.name, [point("a"), point("a", text="other")])
    assert index.writer.count(index.name) == 0


@pytest.mark.parametrize("generation", [-1, 2**53])
def test_a_generation_that_cannot_be_compared_exactly_is_refused(index: Index, generation: int) -> None:
    with pytest.raises(InvalidInput, match="out of range"):
        index.writer.bury(index.name, [tombstone(point("a"), generation=generation)])


def test_the_largest_generations_are_told_apart(index: Index) -> None:
    index.writer.upsert(index.name, [point("a", generation=2**53 - 2)])
    index.writer.upsert(index.name, [point("a", generation=2**53 - 1)])
    index.writer.upsert(index.name, [point("a", generation=2**53 - 2, text="late")])
    assert [hit.generation for hit in index.search(embedding(1))] == [2**53 - 1]


def test_a_buried_point_is_never_found_and_a_zombie_cannot_raise_it(index: Index) -> None:
    zombie = point("a", generation=1)
    index.writer.upsert(index.name, [zombie])
    index.writer.bury(index.name, [tombstone(zombie, generation=2)])
    index.writer.upsert(index.name, [zombie])
    index.writer.advance(index.name, [move(zombie, generation=3)])
    assert index.found(zombie.embedding) == []
    assert index.run(index.searcher.texts(index.name, [zombie.point_id])) == {}
    assert index.state(zombie.point_id) == PointState(zombie.point_id, "a", 2, buried=True)


def test_a_tombstone_keeps_its_place_where_nothing_was(index: Index) -> None:
    late = point("a", generation=1)
    index.writer.bury(index.name, [tombstone(late, generation=2)])
    index.writer.upsert(index.name, [late])
    assert index.found(late.embedding) == []


@pytest.mark.parametrize("late", [1, 2])
def test_a_late_tombstone_buries_nothing(index: Index, late: int) -> None:
    index.writer.upsert(index.name, [point("a", generation=2)])
    index.writer.bury(index.name, [tombstone(point("a"), generation=late)])
    assert index.found(embedding(1)) == ["a"]


def test_a_newer_generation_may_use_a_buried_id_again(index: Index) -> None:
    index.writer.bury(index.name, [tombstone(point("a"), generation=2)])
    index.writer.upsert(index.name, [point("a", generation=3)])
    assert index.found(embedding(1)) == ["a"]
    state = index.state(point("a").point_id)
    assert state is not None
    assert not state.buried


def test_advancing_changes_payload_and_keeps_vectors_and_text(index: Index) -> None:
    stored = point("a", metadata={"old": 1, "both": 1})
    index.writer.upsert(index.name, [stored])
    index.writer.advance(index.name, [move(stored, generation=4, ordinal=9, both=2)])
    (hit,) = index.search(stored.embedding)
    assert (hit.generation, hit.ordinal, hit.metadata) == (4, 9, {"both": 2})
    assert index.run(index.searcher.texts(index.name, [stored.point_id])) == {stored.point_id: stored.text}


@pytest.mark.parametrize("late", [3, 4])
def test_a_late_advance_changes_nothing(index: Index, late: int) -> None:
    index.writer.upsert(index.name, [point("a", generation=4)])
    index.writer.advance(index.name, [move(point("a"), generation=late, ordinal=9, late=True)])
    assert [(hit.ordinal, hit.metadata) for hit in index.search(embedding(1))] == [(0, {})]


def test_advancing_an_absent_point_makes_none_and_does_not_stop_the_others(index: Index) -> None:
    index.writer.upsert(index.name, [point("a"), point("c")])
    index.writer.advance(index.name, [move(point(each), generation=2) for each in "abc"])
    assert {hit.document_id: hit.generation for hit in index.search(embedding(1))} == {"a": 2, "c": 2}
    assert index.state(point("b").point_id) is None


def test_more_than_one_batch_of_everything(index: Index) -> None:
    points = [point(f"d{number}", of=embedding(number)) for number in range(250)]
    index.writer.upsert(index.name, points)
    assert index.writer.count(index.name) == 250
    index.writer.advance(index.name, [move(each, generation=2) for each in points])
    index.writer.bury(index.name, [tombstone(each, generation=3) for each in points[:120]])
    states = index.writer.states(index.name, [each.point_id for each in points])
    assert [state.generation for state in states.values()].count(3) == 120
    assert index.writer.count(index.name) == 130


def test_scroll_yields_every_point_once_and_says_which_are_buried(index: Index) -> None:
    points = [point(f"d{number}") for number in range(620)]
    index.writer.upsert(index.name, points)
    index.writer.bury(index.name, [tombstone(points[0], generation=2)])
    states = list(index.writer.scroll(index.name))
    assert sorted(state.point_id for state in states) == sorted(each.point_id for each in points)
    assert [state.document_id for state in states if state.buried] == ["d0"]


def test_only_tombstones_older_than_asked_are_purged(index: Index) -> None:
    index.writer.upsert(index.name, [point("alive", generation=9)])
    index.writer.bury(index.name, [tombstone(point("dead"), generation=1)])
    index.writer.purge_buried(index.name, before_ms=1)
    assert len(list(index.writer.scroll(index.name))) == 2
    index.writer.purge_buried(index.name, before_ms=2**50)
    assert [state.document_id for state in index.writer.scroll(index.name)] == ["alive"]


def test_the_nearest_come_first_with_falling_scores(index: Index) -> None:
    query = embedding(0)
    index.writer.upsert(
        index.name, [point(f"d{step}", of=near(query, distance=step / 5, seed=50)) for step in range(5)]
    )
    hits = index.search(query, limit=3)
    assert [hit.document_id for hit in hits] == ["d0", "d1", "d2"]
    assert [round(hit.score, 4) for hit in hits] == [0.5, 0.3333, 0.25]


def test_ranks_by_meaning_and_by_words_are_fused(index: Index) -> None:
    query = replace(embedding(0), sparse=SparseVector((7,), (1.0,)))
    index.writer.upsert(
        index.name,
        [
            point("means", of=near(query, distance=0.0, seed=1)),
            point("both", of=replace(near(query, distance=0.3, seed=2), sparse=SparseVector((7, 8), (2.0, 1.0)))),
            point("says", of=Embedding(-query.dense, SparseVector((7,), (1.0,)))),
        ],
    )
    hits = index.search(query)
    assert [(hit.document_id, round(hit.score, 4)) for hit in hits] == [
        ("both", 0.8333),
        ("says", 0.5833),
        ("means", 0.5),
    ]


def test_rare_words_count_more_than_frequent_ones(index: Index) -> None:
    frequent = [point(f"f{number}", of=embedding(1, terms=(1,))) for number in range(9)]
    rare = point("rare", of=replace(embedding(1), dense=-embedding(1).dense, sparse=SparseVector((2,), (1.0,))))
    index.writer.upsert(index.name, [*frequent, rare])
    query = replace(embedding(1), sparse=SparseVector((1, 2), (1.0, 1.0)))
    assert {hit.document_id: hit.score for hit in index.search(query, limit=10)}["rare"] > 0.5


def test_equal_passages_come_in_the_same_order_every_time(index: Index) -> None:
    points = [point(f"d{number}", of=embedding(3, terms=(4,))) for number in range(30)]
    index.writer.upsert(index.name, points)
    answers = {tuple(index.found(embedding(3, terms=(4,)), limit=7)) for _ in range(10)}
    assert len(answers) == 1


def test_equal_scores_are_ordered_by_point_id(index: Index) -> None:
    query = replace(embedding(0), sparse=SparseVector((7,), (1.0,)))
    index.writer.upsert(
        index.name,
        [
            *(point(f"means{step}", of=near(query, distance=step / 9, seed=step)) for step in range(60)),
            *(
                point(f"says{step}", of=Embedding(-query.dense, SparseVector((7,), (60.0 - step,))))
                for step in range(60)
            ),
        ],
    )
    hits = index.search(query, limit=20)
    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.point_id))
    assert len({hit.score for hit in hits}) < 20


def test_a_batch_answers_every_question_in_order(index: Index) -> None:
    index.writer.upsert(index.name, [point(f"d{number}", of=embedding(number)) for number in range(70)])
    queries = [embedding(number) for number in range(60)]
    answers = index.run(index.searcher.search_batch(index.name, queries, limit=1))
    assert [hits[0].document_id for hits in answers] == [f"d{number}" for number in range(60)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"lang": "en"}, {"a", "c"}),
        ({"lang": ["de", "en"]}, {"a", "b", "c"}),
        ({"lang": "en", "year": 2020}, {"a"}),
        ({"year": [2020, "2021"]}, {"a", "b"}),
        ({"draft": True}, {"c"}),
        ({"draft": False}, {"a"}),
        ({"weight": 0.5}, {"b"}),
        ({"a key.with dots": "yes"}, {"a"}),
        ({"tags": "x"}, {"a", "b"}),
        ({"lang": []}, set()),
        ({"absent": "en"}, set()),
        ({}, {"a", "b", "c"}),
    ],
)
def test_only_passages_with_the_wanted_metadata_are_found(
    index: Index, where: dict[str, Any], expected: set[str]
) -> None:
    index.writer.upsert(
        index.name,
        [
            point("a", metadata={"lang": "en", "year": 2020, "draft": False, "a key.with dots": "yes", "tags": ["x"]}),
            point("b", metadata={"lang": "de", "year": "2021", "weight": 0.5, "tags": ["y", "x"]}),
            point("c", metadata={"lang": "en", "year": 1999, "draft": True, "a key": {"with dots": "yes"}}),
        ],
    )
    assert set(index.found(embedding(1), where=where)) == expected


@pytest.mark.parametrize("where", [{"a": None}, {"a": {"b": 1}}, {"a": [["b"]]}, {"": 1}, {'a"b': 1}])
def test_a_filter_that_cannot_be_compared_is_refused(index: Index, where: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        index.search(embedding(1), where=where)


EQUAL_NUMBERS: list[tuple[Any, set[str]]] = [
    (2023, {"whole", "float", "in a list"}),
    (2023.0, {"whole", "float", "in a list"}),
    (2.023e3, {"whole", "float", "in a list"}),
    ([1999, 2023], {"whole", "float", "in a list"}),
    ("2023", {"text"}),
    (2023.5, {"other"}),
    (0, {"zero", "minus zero"}),
    (-0.0, {"zero", "minus zero"}),
    (1, {"one"}),
    (1.0, {"one"}),
    (True, {"true"}),
    ([False, True], {"true"}),
    (2**53, {"2**53"}),
    (2**53 + 1, {"2**53 + 1"}),
    (2.0**53, {"2**53"}),
    ([2**53, 2**53 + 1], {"2**53", "2**53 + 1"}),
    (2**63 - 1, {"largest"}),
    (2.0**63, set()),
    (-(2**63), {"least"}),
    (-(2.0**63), {"least"}),
    (1e300, {"huge"}),
    (10**300, set()),
    (10**400, set()),
]


def test_equal_numbers_are_equal_however_they_are_written(index: Index) -> None:
    values: dict[str, Any] = {
        "whole": 2023,
        "float": 2023.0,
        "in a list": ["x", None, 7, 2023.0],
        "text": "2023",
        "other": 2023.5,
        "zero": 0,
        "minus zero": -0.0,
        "one": 1,
        "true": True,
        "2**53": 2**53,
        "2**53 + 1": 2**53 + 1,
        "largest": 2**63 - 1,
        "least": -(2**63),
        "huge": 1e300,
        "nested": {"n": 2023},
        "none": None,
    }
    index.writer.upsert(index.name, [point(name, metadata={"n": value}) for name, value in values.items()])
    index.writer.upsert(index.name, [point("has none", metadata={})])
    found = [(wanted, set(index.found(embedding(1), limit=20, where={"n": wanted}))) for wanted, _ in EQUAL_NUMBERS]
    assert found == EQUAL_NUMBERS


def test_numbers_that_share_a_float_take_no_places_from_the_wanted_one(index: Index) -> None:
    crowd = [point(f"d{number:02}", metadata={"n": 2**60 + number}) for number in range(60)]
    index.writer.upsert(index.name, crowd)
    assert index.found(embedding(1), limit=1, where={"n": 2**60 + 42}) == ["d42"]
    assert index.found(embedding(1), limit=1, where={"n": 2**60 + 60}) == []


@pytest.mark.parametrize("wanted", [float("nan"), float("inf"), [1, float("-inf")]])
def test_what_is_no_number_is_refused(index: Index, wanted: Any) -> None:
    with pytest.raises(InvalidInput, match="finite"):
        index.search(embedding(1), where={"n": wanted})


def test_copies_and_outdated_points_can_be_left_out_of_a_search(index: Index) -> None:
    copies = [point(f"copy{number}", passage_key="c" * 32) for number in range(5)]
    old, new = point("changed", passage_key="a" * 32), point("other", of=embedding(2))
    index.writer.upsert(index.name, [*copies, old, new])
    one = copies[3]
    left_out = LeftOut(copies={"c" * 32: one.point_id}, outdated={"changed": 2})
    assert index.found(embedding(1), left_out=left_out) == ["copy3", "other"]
    assert index.found(embedding(1), left_out=replace(left_out, outdated={"changed": 1})) in (
        ["copy3", "changed", "other"],
        ["changed", "copy3", "other"],
    )


def test_a_score_threshold_cuts_the_tail(index: Index) -> None:
    index.writer.upsert(index.name, [point(f"d{number}", of=embedding(number)) for number in range(20)])
    hits = index.search(embedding(0), limit=20, score_threshold=0.2)
    assert [round(hit.score, 4) for hit in hits] == [0.5, 0.3333, 0.25, 0.2]


def test_a_limit_below_one_is_refused(index: Index) -> None:
    with pytest.raises(InvalidInput, match="limit"):
        index.search(embedding(1), limit=0)


def test_a_collection_is_made_once_and_only_in_one_shape(index: Index) -> None:
    index.writer.upsert(index.name, [point("a")])
    index.writer.ensure_collection(index.name, dimension=DIMENSION)
    assert index.writer.count(index.name) == 1
    with pytest.raises(Conflict):
        index.writer.ensure_collection(index.name, dimension=DIMENSION + 1)


def test_a_missing_collection_is_said_to_be_missing(index: Index) -> None:
    writer, missing = index.writer, "no-such-collection"
    for use in (
        lambda: writer.upsert(missing, [point("a")]),
        lambda: writer.advance(missing, [move(point("a"), generation=2)]),
        lambda: writer.bury(missing, [tombstone(point("a"), generation=2)]),
        lambda: writer.states(missing, [point("a").point_id]),
        lambda: list(writer.scroll(missing)),
        lambda: writer.purge_buried(missing, before_ms=1),
        lambda: writer.count(missing),
        lambda: index.run(index.searcher.search(missing, embedding(1), limit=1)),
        lambda: index.run(index.searcher.texts(missing, [point("a").point_id])),
    ):
        with pytest.raises(NotFound, match=missing):
            use()
    writer.drop_collection(missing)


def test_a_dropped_collection_comes_back_empty(index: Index) -> None:
    index.writer.upsert(index.name, [point("a")])
    index.writer.drop_collection(index.name)
    index.writer.ensure_collection(index.name, dimension=DIMENSION)
    assert index.writer.count(index.name) == 0


def test_a_point_of_another_dimension_is_refused_and_none_of_its_batch_is_kept(index: Index) -> None:
    good, bad = point("good"), point("bad", of=Embedding(np.ones(3, dtype=np.float32), SparseVector((), ())))
    if index.kind == "local":
        pytest.skip("qdrant-client's local mode stores a batch up to its first bad point")
    with pytest.raises(InvalidInput):
        index.writer.upsert(index.name, [good, bad])
    assert index.writer.count(index.name) == 0


def test_ping_answers(index: Index) -> None:
    index.writer.ping()
    index.run(index.searcher.ping())
