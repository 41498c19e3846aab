"""Edges that need not be tried: where a pattern is known to cut, trying every neighbour agrees."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.context.hostile import HostileTexts
from pipeline.framing import Frame
from pipeline.tokenizers import TokenSpec, build_spec, common_ids, known_encodings, load_spec
from pipeline.tokenizers.edges import always_cuts_behind
from tests.support.real_tokenizers import real_spec
from tests.unit.tokenizers.hf_files import hf_spec
from tests.unit.tokenizers.variants import PLAIN, cl100k_chat, gpt2_chat, o200k_colon

PACKAGED = [*(f"{encoding}/plain" for encoding in known_encodings()), "o200k_harmony/harmony"]
PROVEN = [*PACKAGED, "qwen3/chatml", "llama3/llama3"]
ENDS = st.sampled_from(
    ["/", ".", "://", "'s", "\u0301", "\u200d", "\u180e", "1", "漢", "\U0001f469", "\x1c", "\x85", "a", "_"]
)


def proven(spec_id: str) -> TokenSpec:
    return load_spec(spec_id) if spec_id in PACKAGED else real_spec(spec_id)


def is_same_before_all(spec: TokenSpec, text: str) -> bool:
    return common_ids(spec.reference_tokenizer, text + spec.frame.separator, neighbours=spec.neighbours) is not None


@pytest.mark.parametrize("spec_id", PROVEN)
@given(text=st.one_of(st.text(max_size=30), st.tuples(st.text(max_size=8), ENDS).map("".join)))
def test_where_it_is_known_every_neighbour_agrees(spec_id: str, text: str) -> None:
    spec = proven(spec_id)
    assert spec.cuts_behind_passages
    if text.strip():
        assert is_same_before_all(spec, text.strip())


@pytest.mark.parametrize("spec_id", PROVEN)
def test_where_it_is_known_every_neighbour_agrees_behind_hostile_texts(spec_id: str) -> None:
    spec = proven(spec_id)
    texts = HostileTexts(Random(61), frame=spec.frame, special_tokens=tuple(spec.tokenizer.identity.special_tokens))
    assert [text for text in (texts.passage() for _ in range(3_000)) if not is_same_before_all(spec, text)] == []


@pytest.mark.parametrize(
    ("spec", "is_known"),
    [
        (cl100k_chat, True),
        (o200k_colon, True),
        (gpt2_chat, False),
        (lambda: hf_spec("gpt2"), False),
        (lambda: real_spec("smollm2/chatml"), False),
    ],
)
def test_other_patterns_and_files_are_tried(spec: object, *, is_known: bool) -> None:
    assert callable(spec)
    assert spec().cuts_behind_passages is is_known


@pytest.mark.parametrize(
    "frame",
    [
        replace(PLAIN, name="spaced", separator=" \n"),
        replace(PLAIN, name="ruled", separator="\n---\n"),
        replace(PLAIN, name="carriage", separator="\r\n"),
    ],
)
def test_other_separators_are_tried(frame: Frame) -> None:
    tokenizer = load_spec("o200k_base/plain").tokenizer
    assert not always_cuts_behind(frame, tokenizer)
    assert not build_spec(tokenizer, frame=frame).cuts_behind_passages
