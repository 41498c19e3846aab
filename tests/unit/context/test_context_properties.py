"""For any passages, order and budget a context is what the slow reference makes of its texts."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.context import (
    AssembledContext,
    ContextPassage,
    Order,
    assemble,
    drop_duplicates,
    drop_older_generations,
    prompt_ids,
    prompt_text,
    rendered_segments,
)
from pipeline.framing import context_segments, joined_runs, prompt_segments, question_segments, reference_ids
from pipeline.tokenizers import TokenSpec, encode_passage, golden_texts
from tests.unit.context.builders import EVERY_KIND, SAFE_KINDS, found

FRAGMENTS = [
    *("D", "Q", "a", "'s", "/", ".", "=", "1", ":", "漢", "漢字", "the quick brown fox ", "99999999"),
    *("\U0001f469\u200d\U0001f467", "\U0001fae0", "\uff21", "\ufb01", "\U00020000"),
    *("\n\n", "\n", " ", "  ", "\r\n", "\u00a0", "\u3000", "\t"),
    *("\u0301", "e\u0301", "\u0338", "\u1112\u1161\u11ab", "\u212b", "\u0344"),
    *("<|im_end|>", "<|im_start|>", "<think>", "<|im_", "end|>", "Document 1\n", "Question: "),
]
texts = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join),
    st.sampled_from(golden_texts()),
)
passages = texts.map(str.strip).filter(bool)
orders: st.SearchStrategy[Order] = st.sampled_from(["relevance", "stable"])
hits = st.lists(st.tuples(passages, st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 2)), max_size=5)
shortages = st.integers(-2, 40) | st.integers(-2, 300)
kinds = pytest.mark.parametrize("kind", EVERY_KIND)


def passage_text(spec: TokenSpec, passage: ContextPassage) -> str:
    body = spec.tokenizer.decode(passage.ids)
    assert body.endswith(spec.frame.separator)
    return body[: -len(spec.frame.separator)]


def whole_length(spec: TokenSpec, context: list[str]) -> int:
    ends = question_segments(spec.frame, "") if spec.frame.has_controls else []
    whole = reference_ids([*context_segments(spec.frame, context), *ends], spec.tokenizer)
    return len(whole) - len(reference_ids(ends, spec.tokenizer))


@kinds
@given(found_hits=hits, question=texts, order=orders, short_by=shortages)
@example(found_hits=[("e\u0301 \u0338= x", "a", 0, 1)], question="\u0301", order="relevance", short_by=2)
@example(found_hits=[("ab", "a", 0, 1), ("\U0001fae0" * 4, "b", 0, 1)], question="", order="relevance", short_by=3)
@example(found_hits=[("/a", "b", 0, 1), ("a/ b", "a", 1, 1)], question="/", order="relevance", short_by=2)
def test_every_context_is_what_the_reference_makes_of_its_texts(
    kind: str, found_hits: list[tuple[str, str, int, int]], question: str, order: Order, short_by: int
) -> None:
    spec = EVERY_KIND[kind]()
    raw = {}
    candidates = []
    for text, document_id, ordinal, generation in found_hits:
        candidates.append(found(spec, text, document_id=document_id, ordinal=ordinal, generation=generation))
        raw[candidates[-1].passage_key] = text
    kept = drop_duplicates(drop_older_generations(candidates))
    budget = max(0, whole_length(spec, [raw[passage.passage_key] for passage in kept]) - short_by)
    context = assemble(spec, kept, max_context_tokens=budget, order=order)
    assert len(context.token_ids) <= budget
    assert (len(context.token_ids) == 0) == (not context.passages)
    standing = [
        passage_text(spec, passage) if passage.cut else raw[passage.passage_key] for passage in context.passages
    ]
    assert_exact(spec, context, standing, question)
    assert_selected(context, kept, order=order, is_smaller_than_the_frame=budget < len(spec.prefix_ids))
    if context.passages and context.passages[-1].cut:
        whole = passage_text(spec, kept[len(context.passages) - 1])
        assert whole.startswith(standing[-1])
        assert standing[-1] == standing[-1].strip() != ""
        again = encode_passage(spec, standing[-1])
        assert again.ids.tolist() == context.passages[-1].ids.tolist()
        assert again.right_safe == context.passages[-1].right_safe


def assert_exact(spec: TokenSpec, context: AssembledContext, standing: list[str], question: str) -> None:
    whole = reference_ids(prompt_segments(spec.frame, standing, question), spec.tokenizer).tolist()
    assert prompt_ids(spec, context, question).tolist() == whole
    assert context.token_ids.tolist() == whole[: len(context.token_ids)]
    shown = rendered_segments(spec, context, question)
    assert reference_ids(shown, spec.tokenizer).tolist() == whole
    if (text := prompt_text(spec, context)) is not None:
        assert spec.tokenizer.encode(text).tolist() == context.token_ids.tolist()
    if (text := prompt_text(spec, context, question)) is not None:
        assert spec.tokenizer.encode(text).tolist() == whole
    if not spec.tokenizer.identity.normalizer:
        assert shown == list(joined_runs(prompt_segments(spec.frame, standing, question)))
    if context.passages:
        begun = rendered_segments(spec, context)
        assert reference_ids([*begun, *question_segments(spec.frame, question)], spec.tokenizer).tolist() == whole


def assert_selected(
    context: AssembledContext, kept: list[ContextPassage], *, order: Order, is_smaller_than_the_frame: bool
) -> None:
    taken = kept[: len(context.passages)]
    if order == "stable":
        taken.sort(key=lambda passage: (passage.document_id, passage.ordinal, passage.passage_key))
    assert [passage.passage_key for passage in context.passages] == [passage.passage_key for passage in taken]
    assert len({passage.passage_key for passage in context.passages}) == len(context.passages)
    generations: dict[str, set[int]] = {}
    for passage in context.passages:
        generations.setdefault(passage.document_id, set()).add(passage.generation)
    assert all(len(each) == 1 for each in generations.values())
    cuts = [passage.cut for passage in context.passages]
    assert not any(cuts[:-1])
    assert not (order == "stable" and any(cuts))
    left_out = len(context.passages) < len(kept) or any(cuts)
    assert context.truncated == (left_out or is_smaller_than_the_frame)


@pytest.mark.parametrize("kind", SAFE_KINDS)
@given(context=st.lists(passages, min_size=1, max_size=4, unique=True), order=orders, short_by=st.integers(1, 60))
def test_as_many_whole_passages_are_taken_as_fit_and_of_the_next_what_fits(
    kind: str, context: list[str], order: Order, short_by: int
) -> None:
    spec = SAFE_KINDS[kind]()
    kept = [found(spec, text, document_id=str(index)) for index, text in enumerate(context)]
    budget = whole_length(spec, context) - short_by
    if budget < whole_length(spec, []):
        return
    assembled = assemble(spec, kept, max_context_tokens=budget, order=order)
    fitting = max(n for n in range(len(context) + 1) if whole_length(spec, context[:n]) <= budget)
    assert sum(not passage.cut for passage in assembled.passages) == fitting
    if order == "relevance" and len(assembled.passages) == fitting:
        first_character = passage_text(spec, kept[fitting])[0]
        assert whole_length(spec, [*context[:fitting], first_character]) > budget
