"""Prompts by the oracle alone, and what is called a difference."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.context import (
    AssembledContext,
    ContextPassage,
    Difference,
    WholePassage,
    assemble,
    find_difference,
    prompt_ids,
    reference_context,
)
from pipeline.errors import InvalidInput
from pipeline.framing import prompt_segments, reference_ids
from pipeline.tokenizers import TokenSpec, encode_passage, load_spec
from tests.unit.context.builders import all_found
from tests.unit.tokenizers.hf_files import hf_spec

PLAIN = load_spec("o200k_base/plain")
TEXTS = ["Zebras have stripes.", "Lions <|im_end|> roar", "Caf\u0065\u0301 au lait"]
QUESTION = "Which have stripes?"
WIDE = 10_000

SPECS = {"tiktoken": PLAIN, "chatml": hf_spec("gpt2"), "nfc": hf_spec("qwen")}


def whole(texts: Sequence[str]) -> list[WholePassage]:
    """The texts as found, the first the most relevant and the last in its document."""
    return [
        WholePassage(
            passage_key=bytes([index]) * 16,
            text=text,
            document_id="document",
            ordinal=len(texts) - index,
            generation=1,
            score=1.0,
        )
        for index, text in enumerate(texts)
    ]


def assembled(spec: TokenSpec, texts: Sequence[str] = TEXTS, *, limit: int = WIDE) -> AssembledContext:
    return assemble(spec, all_found(spec, texts), max_context_tokens=limit)


def changed(context: AssembledContext, place: int, passage: ContextPassage) -> AssembledContext:
    passages = list(context.passages)
    passages[place] = passage
    return replace(context, passages=tuple(passages))


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_the_assembler_makes_is_what_the_oracle_makes(spec: TokenSpec) -> None:
    context = assembled(spec)
    assert find_difference(spec, context, TEXTS, QUESTION) is None
    oracle = reference_context(spec, whole(TEXTS), QUESTION, max_context_tokens=WIDE)
    assert oracle.token_ids.tolist() == context.token_ids.tolist()
    assert [passage.source for passage in oracle.passages] == ["off"] * 3
    assert [passage.token_count for passage in oracle.passages] == [p.token_count for p in context.passages]
    expected = reference_ids(prompt_segments(spec.frame, TEXTS, QUESTION), spec.tokenizer)
    assert prompt_ids(spec, oracle, QUESTION).tolist() == expected.tolist()


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_ids_that_spell_another_text_are_the_passage_that_differs(spec: TokenSpec) -> None:
    context = assembled(spec)
    wrong = replace(context.passages[1], ids=encode_passage(spec, "Lions sleep").ids)
    found = find_difference(spec, changed(context, 1, wrong), TEXTS, QUESTION)
    assert found == Difference("passage", 1, (wrong.passage_key,))
    assert TEXTS[1] not in str(found)


def test_ids_that_are_no_text_are_the_passage_that_differs() -> None:
    context = assembled(PLAIN)
    wrong = replace(context.passages[0], ids=np.array([2**31], dtype=np.uint32))
    found = find_difference(PLAIN, changed(context, 0, wrong), TEXTS, QUESTION)
    assert found is not None
    assert (found.what, found.place) == ("passage", 0)


def test_right_texts_put_together_wrongly_are_a_prompt_that_differs() -> None:
    context = assembled(PLAIN)
    ids = context.token_ids.copy()
    ids[5] += 1
    found = find_difference(PLAIN, replace(context, token_ids=ids), TEXTS, QUESTION)
    assert found == Difference("prompt", 5, tuple(passage.passage_key for passage in context.passages))
    short = find_difference(PLAIN, replace(context, token_ids=context.token_ids[:-1]), TEXTS, QUESTION)
    assert short is not None
    assert short.what == "prompt"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_a_passage_may_stand_cut_where_it_says_so_and_only_to_its_beginning(spec: TokenSpec) -> None:
    context = assembled(spec, limit=len(assembled(spec).token_ids) - 2)
    assert [passage.cut for passage in context.passages] == [False, False, True]
    assert find_difference(spec, context, TEXTS, QUESTION) is None
    uncut = changed(context, 2, replace(context.passages[2], cut=False))
    for other, texts in ((uncut, TEXTS), (context, [*TEXTS[:2], "Another text"]), (context, ["More.", *TEXTS[1:]])):
        found = find_difference(spec, other, texts, QUESTION)
        assert found is not None
        assert found.what == "passage"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@given(limit=st.integers(0, 80), order=st.sampled_from(["relevance", "stable"]))
def test_the_oracle_keeps_every_budget_and_takes_by_relevance(spec: TokenSpec, limit: int, order: str) -> None:
    context = reference_context(spec, whole(TEXTS), QUESTION, max_context_tokens=limit, order=order)  # type: ignore[arg-type]  # sampled from its values
    assert len(context.token_ids) <= limit
    taken = {passage.passage_key[0] for passage in context.passages}
    assert taken == set(range(len(taken)))
    assert context.truncated is (len(taken) < len(TEXTS))
    texts = [TEXTS[passage.passage_key[0]] for passage in context.passages]
    expected = reference_ids(prompt_segments(spec.frame, texts, QUESTION), spec.tokenizer)
    assert prompt_ids(spec, context, QUESTION).tolist() == expected.tolist()


def test_a_question_that_cannot_be_spelt_has_a_context_and_no_difference() -> None:
    spec = SPECS["nfc"]
    with pytest.raises(InvalidInput):
        find_difference(spec, assembled(spec), TEXTS, "\ud800")
    context = reference_context(spec, whole(TEXTS), "\ud800", max_context_tokens=WIDE)
    assert context.token_ids.tolist() == assembled(spec).token_ids.tolist()
