from dataclasses import dataclass

from pipeline.context import drop_duplicates, drop_older_generations, order_passages
from pipeline.tokenizers import load_spec
from tests.unit.context.builders import found

SPEC = load_spec("cl100k_base/plain")


@dataclass(frozen=True)
class Point:
    document_id: str
    generation: int
    passage_key: str


def test_two_generations_of_a_document_never_stand_together() -> None:
    hits = [Point("a", 1, "k1"), Point("b", 1, "k2"), Point("a", 2, "k3"), Point("a", 1, "k4")]
    assert drop_older_generations(hits) == [Point("b", 1, "k2"), Point("a", 2, "k3")]


def test_documents_have_generations_of_their_own() -> None:
    hits = [Point("a", 7, "k1"), Point("b", 1, "k2")]
    assert drop_older_generations(hits) == hits


def test_a_text_stands_once_where_it_is_most_relevant() -> None:
    hits = [Point("a", 1, "k1"), Point("b", 1, "k2"), Point("c", 1, "k1"), Point("a", 1, "k2")]
    assert drop_duplicates(hits) == [Point("a", 1, "k1"), Point("b", 1, "k2")]


def test_nothing_stays_nothing() -> None:
    assert drop_older_generations([]) == []
    assert drop_duplicates(list[Point]()) == []


def test_relevance_keeps_the_order_of_the_search() -> None:
    passages = [found(SPEC, "x", document_id="b"), found(SPEC, "y", document_id="a")]
    assert order_passages(passages, order="relevance") == passages


def test_stable_order_depends_on_the_set_only() -> None:
    passages = [
        found(SPEC, "z", document_id="b", ordinal=0),
        found(SPEC, "y", document_id="a", ordinal=10),
        found(SPEC, "x", document_id="a", ordinal=9),
    ]
    expected = [passages[2], passages[1], passages[0]]
    assert order_passages(passages, order="stable") == expected
    assert order_passages(passages[::-1], order="stable") == expected
