"""Copies and outdated points take up no places among the passages that are found."""

from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.memory import MemoryVectorIndex, MemoryVectorSearcher
from pipeline.retrieval.points import point_id
from pipeline.retrieval.vector_index import Hit, Point, VectorIndexWriter, VectorSearcher
from pipeline.services.searching import search_distinct
from tests.support.processes import Processes
from tests.support.qdrant import QdrantOwner

pytestmark = pytest.mark.anyio

DIMENSION = 8
RANDOM = np.random.default_rng(7)
QUESTION = Embedding(np.ones(DIMENSION, dtype=np.float32), SparseVector((1,), (1.0,)))


class CountingSearcher(MemoryVectorSearcher):
    """Counts its searches."""

    searches = 0

    async def search(self, *args: Any, **options: Any) -> list[Hit]:
        self.searches += 1
        return await super().search(*args, **options)


def passage(document_id: str, text: str, *, far: float, generation: int = 1, **metadata: Any) -> Point:
    key = sha256(text.encode()).hexdigest()[:32]
    dense = QUESTION.dense + far * np.random.default_rng(len(text)).normal(size=DIMENSION)
    return Point(
        point_id=point_id("corpus", document_id=document_id, passage_key=key, occurrence=0),
        document_id=document_id,
        ordinal=0,
        generation=generation,
        passage_key=key,
        text=text,
        metadata=metadata,
        token_counts={},
        embedding=Embedding(dense.astype(np.float32), SparseVector((1,), (1.0,))),
    )


def copies(count: int, *, text: str = "the same", far: float = 0.0) -> list[Point]:
    return [passage(f"{text} {number}", text, far=far) for number in range(count)]


def different(count: int) -> list[Point]:
    return [passage(f"different {number}", f"text {'x' * number}", far=0.5) for number in range(count)]


def filled(points: list[Point]) -> CountingSearcher:
    index = MemoryVectorIndex()
    fill(index, points)
    return CountingSearcher(index)


def fill(index: VectorIndexWriter, points: list[Point]) -> None:
    index.ensure_collection("c", dimension=DIMENSION)
    index.upsert("c", points)


async def find(searcher: VectorSearcher, *, top_k: int, **options: Any) -> list[Hit]:
    options = {"where": None, "score_threshold": None, **options}
    return await search_distinct(searcher, "c", QUESTION, top_k=top_k, **options)


def names(hits: list[Hit]) -> list[str]:
    return [hit.document_id.rpartition(" ")[0] for hit in hits]


@pytest.mark.parametrize("count", [30, 1000])
async def test_copies_of_one_text_leave_room_for_the_others(count: int) -> None:
    searcher = filled([*copies(count), *different(8)])
    hits = await find(searcher, top_k=5)
    assert names(hits) == ["the same", *["different"] * 4]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits == await find(searcher, top_k=5)
    assert searcher.searches == 4


async def test_whoever_asks_for_more_than_there_is_gets_all_of_it() -> None:
    searcher = filled([*copies(40), *different(8)])
    assert sorted(names(await find(searcher, top_k=20))) == [*["different"] * 8, "the same"]


async def test_many_texts_with_many_copies_each_are_all_found() -> None:
    texts = [copies(40, text=f"copied {number}", far=number / 10) for number in range(9)]
    searcher = filled([point for text in texts for point in text])
    hits = await find(searcher, top_k=8)
    assert len({hit.passage_key for hit in hits}) == 8
    assert searcher.searches <= 10


async def test_without_copies_there_is_one_search() -> None:
    searcher = filled(different(20))
    assert len(await find(searcher, top_k=5)) == 5
    assert searcher.searches == 1


async def test_where_everything_was_found_nobody_searches_again() -> None:
    searcher = filled([*copies(3), *different(2)])
    assert len(await find(searcher, top_k=5)) == 3
    assert searcher.searches == 1


async def test_outdated_points_take_no_places() -> None:
    old = [passage("changed", f"old {'y' * number}", far=0.01) for number in range(30)]
    new = passage("changed", "new", far=0.0, generation=2)
    hits = await find(filled([*old, new, *different(8)]), top_k=5)
    assert [hit.generation for hit in hits if hit.document_id == "changed"] == [2]
    assert len(hits) == 5


async def test_a_copy_is_found_when_the_one_that_stood_for_it_is_outdated() -> None:
    """Only a deeper search finds out that the document of the best copy has a newer generation."""
    outdated = passage("a", "the same", far=0.0)
    newer = passage("a", "rewritten", far=0.9, generation=2)
    others = [passage(f"b {number}", "the same", far=0.0) for number in range(60)]
    hits = await find(filled([outdated, newer, *others, *different(8)]), top_k=10)
    assert sorted(names(hits)) == ["", "b", *["different"] * 8]
    assert {hit.generation for hit in hits if hit.document_id == "a"} == {2}


async def test_copies_push_nothing_below_the_threshold() -> None:
    hits = await find(filled([*copies(40), *different(8)]), top_k=3, score_threshold=0.2)
    assert names(hits) == ["the same", "different", "different"]


async def test_a_filter_holds_in_every_search() -> None:
    kept = [passage(f"kept {number}", f"kept {'z' * number}", far=0.6, year=2023.0) for number in range(5)]
    same = [passage(f"same {number}", "same", far=0.0, year=2023) for number in range(50)]
    hits = await find(filled([*same, *kept, *different(20)]), top_k=5, where={"year": 2023})
    assert names(hits) == ["same", *["kept"] * 4]


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[QdrantOwner]:
    with Processes(tmp_path) as processes:
        yield QdrantOwner(processes, tmp_path / "data").start()


async def test_the_embedded_engine_finds_others_than_copies_too(owner: QdrantOwner) -> None:
    with closing(owner.writer()) as writer:
        fill(writer, [*copies(300), *different(8)])
    searcher = owner.searcher()
    hits = await find(searcher, top_k=5)
    assert sorted(names(hits)) == [*["different"] * 4, "the same"]
    assert hits == await find(searcher, top_k=5)
    await searcher.close()
