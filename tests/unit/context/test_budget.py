import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.context import Order, assemble, select_within_budget
from pipeline.tokenizers import load_spec
from tests.unit.context.builders import all_found

SPEC = load_spec("cl100k_base/plain")
TEXTS = ["a", "two words", "a passage of several words. " * 3 + "end", "x/y", "漢字"]
PASSAGES = all_found(SPEC, TEXTS)


@given(budget=st.integers(0, 120), order=st.sampled_from(["relevance", "stable"]))
def test_as_many_of_the_most_relevant_as_fit_are_taken(budget: int, order: Order) -> None:
    context = assemble(SPEC, PASSAGES, max_context_tokens=budget, order=order)
    whole = [passage for passage in context.passages if not passage.cut]
    assert len(context.token_ids) <= budget
    assert set(whole) == set(PASSAGES[: len(whole)])
    assert context.truncated == (len(whole) < len(PASSAGES))
    if len(whole) < len(PASSAGES) and budget >= len(SPEC.prefix_ids):
        assert len(assemble(SPEC, PASSAGES[: len(whole) + 1], max_context_tokens=10_000).token_ids) > budget


@pytest.mark.parametrize("cut_last", [False, True])
def test_a_later_passage_never_takes_the_place_of_one_that_does_not_fit(*, cut_last: bool) -> None:
    room = len(assemble(SPEC, [PASSAGES[0], PASSAGES[3]], max_context_tokens=10_000).token_ids)
    candidates = [PASSAGES[0], PASSAGES[2], PASSAGES[3]]
    first, *rest = select_within_budget(SPEC, candidates, max_context_tokens=room, cut_last=cut_last)
    assert first is PASSAGES[0]
    assert [(passage.passage_key, passage.cut) for passage in rest] == [(PASSAGES[2].passage_key, True)] * cut_last


@pytest.mark.parametrize("order", ["relevance", "stable"])
def test_a_budget_that_is_just_enough_is_enough(order: Order) -> None:
    exact = len(assemble(SPEC, PASSAGES, max_context_tokens=10_000, order=order).token_ids)
    assert not assemble(SPEC, PASSAGES, max_context_tokens=exact, order=order).truncated
    short = assemble(SPEC, PASSAGES, max_context_tokens=exact - 1, order=order)
    assert short.truncated
    assert sum(not passage.cut for passage in short.passages) == len(PASSAGES) - 1


def test_a_budget_smaller_than_the_frame_leaves_nothing() -> None:
    context = assemble(SPEC, PASSAGES, max_context_tokens=len(SPEC.prefix_ids) - 1)
    assert (len(context.token_ids), context.passages, context.truncated) == (0, (), True)
    assert assemble(SPEC, [], max_context_tokens=len(SPEC.prefix_ids) - 1).truncated


def test_a_budget_of_just_the_frame_leaves_nothing_either() -> None:
    context = assemble(SPEC, PASSAGES, max_context_tokens=len(SPEC.prefix_ids))
    assert (len(context.token_ids), context.passages, context.truncated) == (0, (), True)


def test_no_passages_are_not_truncated() -> None:
    assert not assemble(SPEC, [], max_context_tokens=100).truncated
