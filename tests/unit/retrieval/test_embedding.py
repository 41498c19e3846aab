"""Vectors an index can take: unit length, never NaN, terms in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.retrieval.embedding import SparseVector, unit_vectors

rows = arrays.arrays(np.float64, st.tuples(st.integers(0, 4), st.integers(1, 4)), elements=st.floats(width=64))


@given(rows)
def test_every_row_becomes_finite_and_of_length_one(vectors: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> None:
    units = unit_vectors(vectors)
    assert units.dtype == np.float32
    assert units.shape == vectors.shape
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1.0, rtol=1e-6)


def test_a_direction_is_kept_and_a_row_without_one_gets_the_first_axis() -> None:
    units = unit_vectors(np.array([[0, 3, 4], [0, 0, 0], [np.nan, 1, 0], [np.inf, 1, 0], [0, 1e308, 1e308]]))
    expected: list[list[float]] = [[0, 0.6, 0.8], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0.5**0.5, 0.5**0.5]]
    np.testing.assert_allclose(units, expected, rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0, 9))))
def test_terms_are_unique_and_ascending_and_keep_the_greater_weight(terms: list[tuple[int, float]]) -> None:
    vector = SparseVector.of(indices=[index for index, _ in terms], values=[value for _, value in terms])
    assert list(vector.indices) == sorted({index for index, _ in terms})
    for index, value in zip(vector.indices, vector.values, strict=True):
        assert value == max(weight for other, weight in terms if other == index)


def test_weights_and_terms_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="shorter"):
        SparseVector.of(indices=[1, 2], values=[1.0])
