import numpy as np
import pytest

from pipeline.errors import InvalidInput
from pipeline.framing import RaggedIds
from pipeline.token_cache import MAX_IDS, Entries
from tests.support.entries import entry_of, passage_key_of

IDS = np.arange(100, dtype=np.uint32)
KEYS = [passage_key_of(name) for name in "abc"]
SAFE = np.array([True, False, True])


def with_gaps() -> RaggedIds:
    return RaggedIds(IDS, np.array([5, 20, 40]), np.array([8, 21, 90]))


def test_columns_are_read_as_pairs_and_parts() -> None:
    entries = Entries(KEYS, with_gaps(), SAFE)
    expected = [
        (KEYS[0], entry_of(5, 6, 7, right_safe=True)),
        (KEYS[1], entry_of(20, right_safe=False)),
        (KEYS[2], entry_of(*range(40, 90), right_safe=True)),
    ]
    assert list(entries) == expected
    assert [list(part) for part in entries.parts(2)] == [expected[:2], expected[2:]]
    assert list(Entries.of(expected)) == expected


@pytest.mark.parametrize(("start", "stop"), [(3, 3), (0, MAX_IDS + 1)])
def test_a_passage_without_ids_or_with_too_many_is_refused(start: int, stop: int) -> None:
    ids = RaggedIds(np.zeros(MAX_IDS + 1, dtype=np.uint32), np.array([0, start]), np.array([1, stop]))
    with pytest.raises(InvalidInput, match=f"1 to {MAX_IDS} ids"):
        Entries(KEYS[:2], ids, SAFE[:2])


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(InvalidInput, match="for every passage"):
        Entries(KEYS[:2], with_gaps(), SAFE)
