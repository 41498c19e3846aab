"""Contexts under Hugging Face specs equal the slow oracle, whatever stands at their seams."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.context import assemble, prompt_ids, validate_spec
from pipeline.context.cutting import passage_text
from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import TokenIds, packaged_frame, prompt_segments, reference_ids
from pipeline.tokenizers import (
    HfTokenizer,
    build_spec,
    encode_passage,
    golden_texts,
    load_hf,
    parse_tokenizer_json,
    pieces,
)
from tests.unit.context.builders import all_found
from tests.unit.tokenizers.hf_files import hf_spec, tokenizer_json, without_bytes

NO_LIMIT = 2**31
FAMILIES = ("gpt2", "qwen")

FRAGMENTS = {
    "edges": ["D", "Q", "a", "'s", "/", ".", "=", "1", "漢", "\U0001f469\u200d\U0001f467", "\uff21", "\ufb01"],
    "white space": ["\n\n", "\n", " ", "  ", "\r\n", "\u00a0"],
    "combining": ["\u0301", "e\u0301", "\u0338"],
    "controls": ["<|im_end|>", "<|im_start|>", "<think>", "<|im_", "end|>"],
    "frame": ["Document 1\n", "Question: "],
}
fragments = st.sampled_from([fragment for kind in FRAGMENTS.values() for fragment in kind])
texts = st.one_of(st.text(max_size=40), st.lists(fragments, max_size=8).map("".join), st.sampled_from(golden_texts()))
passages = texts.map(str.strip).filter(bool)


@pytest.mark.parametrize("family", FAMILIES)
@given(context=st.lists(passages, max_size=5), question=texts, budget=st.none() | st.integers(0, 120))
@example(context=["a", "\u0301b", "c"], question="\u0301", budget=None)
@example(context=["e", "\u0338=", "ends\n\nx"], question="\n\n", budget=None)
def test_assembled_prompts_equal_the_slow_oracle(
    family: str, context: list[str], question: str, budget: int | None
) -> None:
    spec = hf_spec(family)
    assembled = assemble(spec, all_found(spec, context), max_context_tokens=NO_LIMIT if budget is None else budget)
    taken = context[: len(assembled.passages)]
    if taken and assembled.passages[-1].cut:
        taken[-1] = passage_text(spec, assembled.passages[-1])
    whole = reference_ids(prompt_segments(spec.frame, taken, question), spec.tokenizer)
    assert prompt_ids(spec, assembled, question).tolist() == whole.tolist()
    assert assembled.token_ids.tolist() == whole[: len(assembled.token_ids)].tolist()
    controls = [number for number in whole.tolist() if number in spec.tokenizer.special_ids]
    assert len(controls) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_generated_contexts_are_exact_with_every_edge_safe(family: str) -> None:
    report = validate_spec(hf_spec(family), contexts=2_000, seed=30)
    assert (report.contexts, report.unsafe_passages, report.refused_texts) == (2_000, 0, 0)


def test_without_a_guard_a_gpt2_spec_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two line feeds are one token at the end of a text and two before a letter."""
    spec = hf_spec("gpt2")
    assert encode_passage(spec, "a").ids.tolist() != spec.tokenizer.encode("a\n\n").tolist()
    monkeypatch.setattr(pieces, "_ids_in_place", lambda spec, body: spec.tokenizer.encode(body))
    monkeypatch.setattr(pieces, "_same_before_all", lambda *_: True)
    with pytest.raises(
        ExactnessError, match=r"gpt2/chatml is not exact: the prompt differs .*passages=\('[^,]{1,6}',\)"
    ):
        validate_spec(spec, contexts=100, seed=31)


def test_texts_that_cannot_be_spelled_are_counted_and_left_out() -> None:
    lacking = load_hf(tokenizer_json("gpt2", without_bytes(["Ć", "Ĕ"])), name="lacking")
    report = validate_spec(build_spec(lacking, frame=packaged_frame("chatml")), contexts=1_000, seed=32)
    assert 0 < report.refused_texts < 300
    assert report.contexts == 1_000


class Squeamish(HfTokenizer):
    """Takes nothing but ASCII."""

    refuses = False

    def encode(self, text: str) -> TokenIds:
        if self.refuses and not text.isascii():
            raise InvalidInput("no")
        return super().encode(text)


def test_a_tokenizer_that_refuses_too_much_is_refused() -> None:
    tokenizer = Squeamish(parse_tokenizer_json(tokenizer_json()), name="squeamish")
    spec = build_spec(tokenizer, frame=packaged_frame("chatml"))
    tokenizer.refuses = True
    with pytest.raises(ExactnessError, match="squeamish/chatml refuses too many texts"):
        validate_spec(spec, contexts=1_000, seed=33)
