"""What the in-memory twin adds to the contract: every order of conflicting writes ends in the same state."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.memory import MemoryVectorIndex
from pipeline.retrieval.vector_index import Point, PointMove, PointState, Tombstone


def point(generation: int) -> Point:
    dense = np.array([1.0, float(generation)], dtype=np.float32)
    return Point("p", "d", 0, generation, "0" * 32, "text", {}, {}, Embedding(dense, SparseVector((), ())))


WRITES: list[Callable[[MemoryVectorIndex], None]] = [
    lambda index: index.upsert("c", [point(1)]),
    lambda index: index.bury("c", [Tombstone("p", "d", 2)]),
    lambda index: index.upsert("c", [point(3)]),
    lambda index: index.bury("c", [Tombstone("p", "d", 4)]),
]


@pytest.mark.parametrize("order", list(permutations(WRITES)))
def test_the_highest_generation_wins_in_every_order(order: tuple[Callable[[MemoryVectorIndex], None], ...]) -> None:
    index = MemoryVectorIndex()
    index.ensure_collection("c", dimension=2)
    for write in (*order, *order):
        write(index)
    index.advance("c", [PointMove("p", 1, 5, {})])
    assert index.states("c", ["p"]) == {"p": PointState("p", "d", 4, buried=True)}


def test_purging_goes_by_the_clock_of_the_burial() -> None:
    now_ms = 1_000
    index = MemoryVectorIndex(clock_ms=lambda: now_ms)
    index.ensure_collection("c", dimension=2)
    index.bury("c", [Tombstone("p", "d", 1)])
    index.purge_buried("c", before_ms=1_000)
    assert len(list(index.scroll("c"))) == 1
    index.purge_buried("c", before_ms=1_001)
    assert list(index.scroll("c")) == []
