"""BM25's term weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.retrieval.bm25 import Bm25Terms

TERMS = Bm25Terms()


@given(st.text())
def test_vectors_are_well_formed_for_any_text(text: str) -> None:
    for vector in (TERMS.encode_passage(text), TERMS.encode_query(text)):
        assert list(vector.indices) == sorted(set(vector.indices))
        assert all(0 <= index < 2**32 for index in vector.indices)
        assert len(vector.values) == len(vector.indices)
        assert all(0 < value < 10 for value in vector.values)


def test_a_question_weighs_each_different_term_once() -> None:
    assert TERMS.encode_query("files and files").values == (1.0,)


def test_words_meet_in_their_stems_and_stop_words_say_nothing() -> None:
    assert TERMS.encode_query("Copying the files").indices == TERMS.encode_passage("copy a file").indices
    assert TERMS.encode_passage("the and of").indices == ()
    assert TERMS.encode_query("").indices == ()


def test_a_term_weighs_more_when_repeated_and_less_in_a_long_text() -> None:
    once, repeated = TERMS.encode_passage("file").values[0], TERMS.encode_passage("file " * 5).values[0]
    long_text = "file " + " ".join(f"word{number}" for number in range(500))
    [term] = TERMS.encode_query("file").indices
    in_long_text = TERMS.encode_passage(long_text)
    assert in_long_text.values[in_long_text.indices.index(term)] < once < repeated


@pytest.mark.parametrize("text", ["自然语言处理", "ภาษาไทยเป็นภาษา"])
def test_languages_without_spaces_have_terms(text: str) -> None:
    assert len(TERMS.encode_passage(text).indices) > 1


def test_term_ids_never_change() -> None:
    assert TERMS.encode_query("hello world").indices == (74040069, 613153351)


def test_terms_and_weights_are_those_of_version_1() -> None:
    """When this fails after an upgrade, corpora embedded before cannot be searched: raise the version in the name."""
    terms = TERMS.encode_passage("Python strings are immutable; 字符串 don't change. Running runners ran!")
    expected = (243905464, 382690731, 567658162, 617246313, 683459885, 946033505, 1384640908, 1390314837, 2000354713)
    assert terms.indices == expected
    assert terms.values == pytest.approx((1.5930485725402832,) * len(expected))
