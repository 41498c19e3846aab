"""The campaign's judge notices what it is there to notice; one that finds nothing wrong must be able to."""

from typing import Any

import pytest

from tests.campaign.texts import document_text
from tests.campaign.truth import Truth, encode, prompt

NAME = "document001"


@pytest.fixture
def truth() -> Truth:
    """One document in two accepted generations; the second is not known to be served."""
    truth = Truth()
    for generation in (1, 2):
        text = document_text(NAME, generation)
        assert truth.propose(NAME, text) == generation
        truth.accept(NAME, text, generation=generation)
    truth.serve(NAME, 1)
    return truth


def answer(truth: Truth, generation: int, *, ordinal: int = 0) -> dict[str, Any]:
    """What the API would say, had it found one passage."""
    passages = truth._documents[NAME].passages[generation][0]
    text = prompt([passages[ordinal]])
    place = {"document_id": NAME, "generation": generation, "ordinal": ordinal, "source": "l2"}
    return {"passages": [place], "token_ids": encode(text), "prompt_text": text}


def test_the_served_generation_and_a_newer_one_may_be_found(truth: Truth) -> None:
    for generation in (1, 2):
        truth.judge(answer(truth, generation), least=truth.least())
    assert (truth.wrong, truth.stale, truth.checked_passages) == ([], [], 2)


def test_one_older_than_what_was_served_when_the_query_began_is_stale(truth: Truth) -> None:
    before = truth.least()
    truth.serve(NAME, 2)
    truth.judge(answer(truth, 1), least=before)
    assert truth.stale == []
    truth.judge(answer(truth, 1), least=truth.least())
    assert len(truth.stale) == 1


def test_a_deleted_document_that_comes_back_is_stale(truth: Truth) -> None:
    assert truth.propose(NAME, None) == 3
    truth.accept(NAME, None, generation=3)
    truth.judge(answer(truth, 2), least=truth.least())
    assert truth.stale == []
    truth.serve(NAME, 3)
    truth.judge(answer(truth, 2), least=truth.least())
    assert len(truth.stale) == 1
    assert truth.living() == {}


def test_one_wrong_id_is_noticed(truth: Truth) -> None:
    found = answer(truth, 2, ordinal=1)
    found["token_ids"][17] += 1
    truth.judge(found, least={})
    assert len(truth.wrong) == 1


def test_the_text_of_another_generation_is_noticed(truth: Truth) -> None:
    found = answer(truth, 1, ordinal=1)
    found["passages"][0]["generation"] = 2
    truth.judge(found, least={})
    assert len(truth.wrong) == 1


def test_a_document_that_nobody_sent_is_noticed(truth: Truth) -> None:
    found = answer(truth, 2)
    found["passages"][0]["document_id"] = "document002"
    truth.judge(found, least={})
    assert "nobody sent it" in truth.wrong[0]


def test_a_change_that_is_accepted_as_an_older_generation_is_noticed(truth: Truth) -> None:
    truth.propose(NAME, "text")
    truth.accept(NAME, "text", generation=2)
    assert len(truth.wrong) == 1


def test_a_verification_may_publish_the_same_text_again_as_a_newer_generation(truth: Truth) -> None:
    again = answer(truth, 2)
    again["passages"][0]["generation"] = 3
    truth.judge(again, least=truth.least())
    text = document_text(NAME, 3)
    truth.propose(NAME, text)
    truth.accept(NAME, text, generation=4)
    truth.judge(again, least=truth.least())
    truth.judge(answer(truth, 4, ordinal=1), least=truth.least())
    assert (truth.wrong, truth.stale) == ([], [])
    wrong = answer(truth, 4, ordinal=1)
    wrong["passages"][0]["generation"] = 3
    truth.judge(wrong, least=truth.least())
    assert len(truth.wrong) == 1


def test_every_passage_names_its_document_and_all_but_one_its_generation(truth: Truth) -> None:
    passages = {generation: possible[0] for generation, possible in truth._documents[NAME].passages.items()}
    assert all(NAME in text for texts in passages.values() for text in texts)
    assert passages[1][0] == passages[2][0]
    assert all("in generation 2" in text for text in passages[2][1:])
