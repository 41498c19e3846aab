"""Point ids."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from pipeline.retrieval.points import point_id

KEY = "ab" * 16
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def test_an_id_is_the_same_for_ever() -> None:
    made = point_id("0192", document_id="guide/intro.md", passage_key=KEY, occurrence=0)
    assert made == "ce20f58d-02d6-54b2-926a-085cb7c0b355"


def test_corpus_document_passage_and_occurrence_each_make_another_id() -> None:
    ids = {
        point_id("a", document_id="d", passage_key=KEY, occurrence=0),
        point_id("b", document_id="d", passage_key=KEY, occurrence=0),
        point_id("a", document_id="e", passage_key=KEY, occurrence=0),
        point_id("a", document_id="d", passage_key=KEY[::-1], occurrence=0),
        point_id("a", document_id="d", passage_key=KEY, occurrence=1),
    }
    assert len(ids) == 5


@given(one=st.tuples(ANY_TEXT, ANY_TEXT), other=st.tuples(ANY_TEXT, ANY_TEXT))
def test_no_text_can_pretend_to_be_two_fields(one: tuple[str, str], other: tuple[str, str]) -> None:
    ids = [point_id("c", document_id=document, passage_key=key, occurrence=0) for document, key in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
    assert str(UUID(ids[0])) == ids[0]


def test_moving_a_character_from_one_field_to_the_next_makes_another_id() -> None:
    ids = {
        point_id("c", document_id="1:a", passage_key="b", occurrence=0),
        point_id("c", document_id="1", passage_key=":ab", occurrence=0),
        point_id("c", document_id="1:a1:b", passage_key="", occurrence=0),
    }
    assert len(ids) == 3
