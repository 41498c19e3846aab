import numpy as np

from pipeline.framing import Control, Text, TokenIds, joined_runs, reference_ids, segments_as_data


class CharacterEncoder:
    """One id a character, and one more in front of each text: so runs can be told from pieces."""

    def encode(self, text: str) -> TokenIds:
        return np.array([1, *map(ord, text)], dtype=np.uint32)

    def control_id(self, name: str) -> int:
        return 1000 + len(name)


def test_neighbouring_texts_are_encoded_as_one_run() -> None:
    ids = reference_ids([Text("a"), Text("b"), Control("<c>"), Text("d")], CharacterEncoder())
    assert ids.tolist() == [1, ord("a"), ord("b"), 1003, 1, ord("d")]


def test_empty_texts_leave_no_run() -> None:
    assert list(joined_runs([Text(""), Control("<c>"), Text(""), Control("<c>")])) == [Control("<c>"), Control("<c>")]


def test_nothing_has_no_ids() -> None:
    ids = reference_ids([], CharacterEncoder())
    assert ids.tolist() == []
    assert ids.dtype == np.uint32


def test_text_that_spells_a_control_token_stays_text_in_data() -> None:
    data = segments_as_data([Control("<c>"), Text("<c>"), Text("!")])
    assert data == [{"control": "<c>"}, {"text": "<c>!"}]
