import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from pipeline.context import cutting, validate_spec
from pipeline.context.hostile import MAX_TEXT_BYTES, HostileTexts
from pipeline.errors import ExactnessError
from pipeline.framing import TokenIds, packaged_frame
from pipeline.tokenizers import (
    TiktokenTokenizer,
    TokenSpec,
    build_spec,
    load_ranks,
    load_spec,
    pieces,
    vocabulary_definition,
)
from tests.unit.tokenizers.reference import SPECS
from tests.unit.tokenizers.variants import CHAT, cl100k_chat, gpt2_chat, o200k_colon


@pytest.mark.parametrize("spec_id", SPECS)
def test_packaged_specs_are_exact_with_every_edge_safe(spec_id: str) -> None:
    report = validate_spec(load_spec(spec_id), contexts=2_000, seed=20)
    assert (report.contexts, report.unsafe_passages) == (2_000, 0)
    assert report.passages > 5_000


@pytest.mark.parametrize("make_spec", [cl100k_chat, gpt2_chat])
def test_chat_frames_are_exact(make_spec: Callable[[], TokenSpec]) -> None:
    assert validate_spec(make_spec(), contexts=500, seed=21).unsafe_passages == 0


def test_unsafe_edges_are_found_and_encoded_anew() -> None:
    assert validate_spec(o200k_colon(), contexts=500, seed=22).unsafe_passages > 5


def test_equal_seeds_give_equal_examples_and_others_do_not() -> None:
    spec = o200k_colon()
    first, again, other = (validate_spec(spec, contexts=50, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


def test_progress_ends_at_the_number_of_contexts() -> None:
    seen: list[int] = []
    validate_spec(load_spec("cl100k_base/plain"), contexts=250, seed=3, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == 250


def test_without_a_guard_validation_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_ids_in_place", lambda spec, body: spec.tokenizer.encode(body))
    monkeypatch.setattr(pieces, "_same_before_all", lambda *_: True)
    with pytest.raises(
        ExactnessError, match=r"variant/chat is not exact: the prompt differs .*passages=\('[^,]{1,6}',\), question=''"
    ):
        validate_spec(gpt2_chat(), contexts=100, seed=4)


def test_without_looking_at_the_header_validation_fails_and_shows_a_minimal_example(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pieces, "_ids_in_place", lambda spec, body: spec.tokenizer.encode(body))
    with pytest.raises(ExactnessError, match=r"the context differs .*passages=\('/.?',\), question=''"):
        validate_spec(o200k_colon(), contexts=200, seed=5)


def test_a_frame_with_an_empty_passage_would_fail() -> None:
    """Why a passage is never empty: header and separator would be one token."""
    encode = load_spec("o200k_base/plain").tokenizer.encode
    assert encode("Document 1\n\n\nD").tolist() != [*encode("Document 1\n").tolist(), *encode("\n\nD").tolist()]


class SpecialInText(TiktokenTokenizer):
    """Breaks the rule that text stays text."""

    def encode(self, text: str) -> TokenIds:
        return np.array(self._bpe.encode(text, allowed_special="all"), dtype=np.uint32)


def test_a_tokenizer_that_makes_control_tokens_of_text_is_refused() -> None:
    definition = vocabulary_definition("cl100k_base")
    spec = build_spec(SpecialInText(definition, ranks=load_ranks(definition)), frame=CHAT)
    with pytest.raises(ExactnessError, match=r"a control token came from text; example: .*<\|"):
        validate_spec(spec, contexts=300, seed=6)


def test_a_wrong_piece_of_the_frame_is_found() -> None:
    spec = load_spec("cl100k_base/plain")
    dishonest = replace(spec, prefix_ids=spec.prefix_ids[:1])
    with pytest.raises(ExactnessError, match="differs at id 1"):
        validate_spec(dishonest, contexts=10, seed=7)


def test_generated_texts_keep_the_limits_of_passages_and_queries() -> None:
    hostile = HostileTexts(
        Random(8), frame=packaged_frame("plain"), special_tokens=("<|x|>",), corpus_texts=("é" * 9000,)
    )
    generated = [hostile.passage() for _ in range(300)] + [hostile.question() for _ in range(300)]
    assert max(len(text.encode()) for text in generated) <= MAX_TEXT_BYTES
    assert all(text == text.strip() != "" for text in generated[:300])
    assert {"", "\n"} & set(generated[300:])


def test_generated_texts_hold_every_kind_of_text_that_breaks_seams() -> None:
    hostile = HostileTexts(Random(9), frame=packaged_frame("plain"), special_tokens=("<|mine|>",))
    passages = [hostile.passage() for _ in range(12_000)]
    everything = "".join(passages)
    held = set(everything)
    assert {chr(point) for point in range(0x110000) if chr(point).isspace()} <= held
    assert {unicodedata.category(chr(point)) for point in range(0x110000)} - {"Cs"} == set(
        map(unicodedata.category, held)
    )
    assert {unicodedata.bidirectional(character) for character in "\u05d0\u0627\u202e\u2067\u0663"} <= set(
        map(unicodedata.bidirectional, held)
    )
    for invisible in "\u200b\u200c\u200d\u2060\ufeff\ufe0f\u00ad":
        assert invisible in held
    for shape in (
        r"\d{30}",  # digit runs
        r"\w[\u0300-\u036f]{2}",  # combining marks on a letter
        "\U0001f468\u200d\U0001f469",  # emoji that are joined
        "\U0001f3f4\U000e0067",  # emoji that are spelled with tags
        r"<\|mine\|>",
        r"<\|mi<\|mine\|>ne\|>",  # special tokens within special tokens
    ):
        assert re.search(shape, everything), shape
    for edge in ("/", "'", '"', "\u2019", "'s", "'LL", "n't", "\u201d", "'\u017f"):
        assert any(text.startswith(edge) for text in passages), edge
        assert any(text.endswith(edge) for text in passages), edge
    assert max(map(len, passages)) > 4000


def test_a_good_share_of_the_contexts_is_cut() -> None:
    report = validate_spec(load_spec("o200k_base/plain"), contexts=1_000, seed=10)
    assert report.cuts > 150


def test_a_wrong_cut_is_shown_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the budget and the passages it was found with."""
    monkeypatch.setattr(cutting, "passage_text", lambda *_: "x" * 9)
    monkeypatch.setattr(cutting, "_beginning", lambda *_, **__: "xy")
    with pytest.raises(
        ExactnessError, match=r"'xy' is no beginning .*passages=\('.{1,14}',\), question=''.*short_by=1\)"
    ):
        validate_spec(load_spec("cl100k_base/plain"), contexts=200, seed=11)
