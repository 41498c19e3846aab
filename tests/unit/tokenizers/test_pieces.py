from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InvalidInput
from pipeline.framing import NO_IDS
from pipeline.tokenizers import (
    HfTokenizer,
    Neighbour,
    TiktokenTokenizer,
    TokenSpec,
    encode_passage,
    encode_passages,
    encode_prefix,
    load_spec,
    load_twin,
    question_ids,
)
from tests.unit.tokenizers.generated import generated_texts
from tests.unit.tokenizers.hf_files import hf_spec
from tests.unit.tokenizers.reference import SPECS, official
from tests.unit.tokenizers.variants import cl100k_chat, gpt2_chat, o200k_colon

SPEC_KINDS: dict[str, Callable[[], TokenSpec]] = {
    "plain": lambda: load_spec("o200k_base/plain"),
    "chat": cl100k_chat,
    "guarded": gpt2_chat,
    "unsafe edges": o200k_colon,
    "file": lambda: hf_spec("gpt2"),
    "normalizing file": lambda: hf_spec("qwen"),
}


@cache
def with_twin(kind: str) -> TokenSpec:
    spec = SPEC_KINDS[kind]()
    reference = spec.reference_tokenizer
    if not isinstance(reference, TiktokenTokenizer | HfTokenizer) or kind == "guarded":
        return spec  # its pattern is none that the twin could know
    return replace(spec, tokenizer=load_twin(reference))


@pytest.mark.parametrize("spec_id", SPECS)
@pytest.mark.parametrize(
    "text", ["a", "ends.", "/etc/", "it's", "<|endoftext|>", "\u0301x\u0301", "漢", "12", "a\n\nb", "=" * 500]
)
def test_a_passage_is_encoded_with_its_separator(spec_id: str, text: str) -> None:
    spec = load_spec(spec_id)
    piece = encode_passage(spec, text)
    assert piece.right_safe
    assert piece.ids.tolist() == official(spec.encoding).encode_ordinary(text + "\n\n")
    assert piece.token_count == len(piece.ids)


@pytest.mark.parametrize("text", ["", " ", "\n", " a", "a ", "a\n", "\u3000a", "a\u2029", "a\x85", "\x1fa"])
def test_what_is_no_passage_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="never empty and has no white space at its ends"):
        encode_passage(load_spec("o200k_base/plain"), text)


@pytest.mark.parametrize("text", ["a", "ends.", "def f():\n    pass", "漢字"])
def test_a_guard_keeps_ids_that_the_end_of_a_text_would_change(text: str) -> None:
    spec = gpt2_chat()
    piece = encode_passage(spec, text)
    assert piece.right_safe
    assert not np.array_equal(piece.ids, spec.tokenizer.encode(text + "\n\n"))
    assert spec.tokenizer.decode(piece.ids) == text + "\n\n"


def test_a_passage_that_the_header_would_swallow_is_marked() -> None:
    spec = o200k_colon()
    assert encode_passage(spec, "etc/passwd/").right_safe
    swallowed = encode_passage(spec, "/etc/passwd")
    assert not swallowed.right_safe
    assert spec.tokenizer.decode(swallowed.ids) == "/etc/passwd\n\n"


def test_a_passage_whose_end_depends_on_what_follows_is_marked() -> None:
    """Before a header and before a question alike is not enough: where contexts are text, the end counts, too."""
    spec = gpt2_chat()
    assert encode_passage(spec, "text").right_safe
    end_too = replace(spec, context_ends=(*spec.context_ends, Neighbour(text="", ids=NO_IDS)))
    assert not encode_passage(end_too, "text").right_safe


def test_a_prefix_is_a_context_without_passages() -> None:
    spec = load_spec("o200k_base/plain")
    assert encode_prefix(spec) is spec.prefix_ids


def test_prefix_question_and_suffix_are_one_run() -> None:
    spec = load_spec("o200k_base/plain")
    theirs = official("o200k_base")
    question = "Why is the sky blue?"
    apart = (
        theirs.encode_ordinary("Question: ") + theirs.encode_ordinary(question) + theirs.encode_ordinary("\n\nAnswer:")
    )
    assert question_ids(spec, question).tolist() == theirs.encode_ordinary(f"Question: {question}\n\nAnswer:")
    assert question_ids(spec, question).tolist() != apart


def test_a_question_with_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        question_ids(load_spec("o200k_base/plain"), "why \udfff?")


@pytest.mark.parametrize("kind", SPEC_KINDS)
@given(texts=st.lists(st.text(min_size=1, max_size=80).map(str.strip).filter(bool), max_size=12))
def test_many_passages_are_encoded_as_each_alone(kind: str, texts: list[str]) -> None:
    assert_as_alone(kind, texts)


@pytest.mark.parametrize("kind", SPEC_KINDS)
def test_many_nasty_passages_are_encoded_as_each_alone(kind: str) -> None:
    stripped = (text.strip() for text in generated_texts(1500, seed=5))
    assert_as_alone(kind, [text for text in stripped if text])


def assert_as_alone(kind: str, texts: list[str]) -> None:
    spec = SPEC_KINDS[kind]()
    expected = [encode_passage(spec, text) for text in texts]
    for found in (encode_passages(spec, texts), encode_passages(with_twin(kind), texts)):
        assert [(piece.ids.tolist(), piece.right_safe) for piece in found] == [
            (piece.ids.tolist(), piece.right_safe) for piece in expected
        ]


def test_one_passage_that_is_refused_refuses_all() -> None:
    spec = load_spec("o200k_base/plain")
    for bad, message in ((" a", "white space"), ("", "never empty"), ("\ud800", "lone surrogate")):
        with pytest.raises(InvalidInput, match=message):
            encode_passages(spec, ["a", bad, "b"])
