"""A passage's name and its place."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.passages import passage_key, passages_of

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def test_a_key_is_the_hash_of_two_length_framed_fields() -> None:
    framed = (10).to_bytes(8, "little") + b"passage-v1" + (3).to_bytes(8, "little") + "né".encode()
    assert passage_key("né") == sha256(framed).digest()[:16]


def test_a_key_never_changes() -> None:
    assert passage_key("The quick brown fox.").hex() == "c1f61049006261e7d26a7b6920f43cbd"


@given(st.text(), st.text())
def test_equal_keys_mean_equal_texts(one: str, other: str) -> None:
    assert (passage_key(one) == passage_key(other)) == (one == other)


@given(st.text(alphabet=" \n\t\u3000ab", max_size=40), spans)
def test_passages_are_stripped_spans_of_the_text_and_never_empty(text: str, offsets: list[tuple[int, int]]) -> None:
    for passage in passages_of(text, spans=offsets):
        assert passage.text == text[passage.start : passage.end] == passage.text.strip() != ""
        assert passage.key == passage_key(passage.text)


def test_repeated_texts_are_told_apart_by_their_occurrence() -> None:
    passages = passages_of("ab ab cd ab", spans=[(0, 3), (3, 6), (6, 8), (8, 11)])
    assert [(passage.text, passage.occurrence) for passage in passages] == [("ab", 0), ("ab", 1), ("cd", 0), ("ab", 2)]


def test_white_space_is_no_passage() -> None:
    assert passages_of(" \n\u3000 ", spans=[(0, 2), (2, 4)]) == []
