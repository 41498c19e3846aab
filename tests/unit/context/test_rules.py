"""Each rule that makes ids exact, broken alone: validation finds it, so the rule is needed and is watched."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.context import ContextPassage, assembly, budget, cutting, validate_spec
from pipeline.context.cutting import passage_text
from pipeline.errors import ExactnessError
from pipeline.framing import TokenIds, reference_ids
from pipeline.tokenizers import (
    EncodedPassage,
    Neighbour,
    TokenSpec,
    encode_header,
    encode_passage,
    encode_prefix,
    load_spec,
    pieces,
)
from tests.unit.context.builders import EVERY_KIND, lines_chat, slash_chat
from tests.unit.tokenizers.hf_files import hf_spec
from tests.unit.tokenizers.variants import gpt2_chat, o200k_colon

CONTEXTS = 2_000
MERGING = [kind for kind in EVERY_KIND if kind != "hf small"]
"""Kinds that have tokens of line feeds, which a cut must get right; the small vocabulary has none."""
SEAMED = [kind for kind in MERGING if kind != "lines"]
"""Kinds most of whose entries' ids are used as they are; where all edges are unsafe only their texts are."""


def refused(spec: TokenSpec, match: str) -> None:
    with pytest.raises(ExactnessError, match=match):
        validate_spec(spec, contexts=CONTEXTS, seed=40)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_with_every_rule_every_kind_is_exact(kind: str) -> None:
    report = validate_spec(EVERY_KIND[kind](), contexts=400, seed=41)
    assert report.cuts > 40


@pytest.mark.parametrize("make_spec", [gpt2_chat, lambda: hf_spec("gpt2")])
def test_the_guard_behind_a_piece(make_spec: Callable[[], TokenSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_ids_in_place", lambda spec, body: spec.tokenizer.encode(body))
    monkeypatch.setattr(pieces, "_same_before_all", lambda *_: True)
    refused(make_spec(), "the prompt differs")


def test_the_header_before_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_ids_in_place", lambda spec, body: spec.tokenizer.encode(body))
    refused(o200k_colon(), r"the context differs .*passages=\('/.?',\)")


def test_an_edge_is_safe_only_if_its_ids_are_the_same_before_every_neighbour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "_same_before_all", lambda *_: True)
    refused(slash_chat(), r"the prompt differs .*passages=\('/.?',\), question=''")


@pytest.mark.parametrize("make_spec", [o200k_colon, slash_chat, lines_chat])
def test_runs_around_unsafe_edges_are_encoded_anew(
    make_spec: Callable[[], TokenSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def concatenate(spec: TokenSpec, passages: Sequence[ContextPassage]) -> TokenIds:
        parts = [encode_prefix(spec)]
        for number, passage in enumerate(passages, start=1):
            parts += (encode_header(spec, number), passage.ids)
        return np.concatenate(parts)

    monkeypatch.setattr(assembly, "concatenate", concatenate)
    refused(make_spec(), "differs at id")


def test_a_run_encoded_anew_has_its_guard_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def unguarded(spec: TokenSpec, text: str, _neighbours: Sequence[Neighbour]) -> TokenIds:
        return spec.tokenizer.encode(text)

    monkeypatch.setattr(assembly, "_run_ids", unguarded)
    refused(lines_chat(), "the prompt differs")


def test_the_budget_counts_final_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "cut_passage", lambda _spec, passage, **_: passage)  # nothing gives way
    monkeypatch.setattr(assembly, "count", lambda: range(1))
    refused(lines_chat(), "ids over the budget")


@pytest.mark.parametrize("kind", SEAMED)
def test_ids_are_never_cut(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = EVERY_KIND[kind]()
    separator = spec.tokenizer.encode(spec.frame.separator)

    def cut_ids(spec: TokenSpec, passage: ContextPassage, *, room_tokens: int) -> ContextPassage | None:
        for kept in range(min(room_tokens, passage.token_count) - len(separator), 0, -1):
            cut = replace(passage, ids=np.concatenate((passage.ids[:kept], separator)), cut=True)
            try:
                text = passage_text(spec, cut)
            except ExactnessError:
                continue
            if text == text.strip() != "":
                return cut
        return None

    monkeypatch.setattr(budget, "cut_passage", cut_ids)
    refused(spec, "differs at id")


@pytest.mark.parametrize("kind", MERGING)
def test_what_is_left_of_a_text_is_encoded_with_its_separator(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(spec: TokenSpec, text: str) -> EncodedPassage:
        encode = spec.tokenizer.encode
        return EncodedPassage(np.concatenate((encode(text), encode(spec.frame.separator))), right_safe=True)

    monkeypatch.setattr(cutting, "encode_passage", apart)
    refused(EVERY_KIND[kind](), "differs at id")


def kept_white_space(spec: TokenSpec, passage: ContextPassage, *, kept: int, text: str) -> str:
    """Return the text of ids with the white space at its end."""
    for end in range(kept, 0, -1):
        try:
            return spec.tokenizer.decode(passage.ids[:end])[: len(text)]
        except ExactnessError:
            continue
    return text[0]


def unchecked(spec: TokenSpec, text: str) -> EncodedPassage:
    """Encode whatever ends a text."""
    body = text + spec.frame.separator
    ids = pieces._ids_in_place(spec, body)
    return EncodedPassage(spec.tokenizer.encode(body) if ids is None else ids, right_safe=ids is not None)


@pytest.mark.parametrize(
    ("encode", "match"), [(encode_passage, "no white space at its ends"), (unchecked, "is no beginning of the passage")]
)
def test_a_cut_is_right_stripped(
    encode: Callable[[TokenSpec, str], EncodedPassage], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "_beginning", kept_white_space)
    monkeypatch.setattr(cutting, "encode_passage", encode)
    refused(load_spec("o200k_base/plain"), match)


def no_boundary(spec: TokenSpec, passage: ContextPassage, *, kept: int, text: str) -> str:
    """Return the text of ids wherever they end."""
    return spec.tokenizer.decode(passage.ids[:kept])[: len(text)].rstrip()


def replaced(spec: TokenSpec, passage: ContextPassage, *, kept: int, text: str) -> str:
    """Return the text of ids as libraries give it: what is no character replaced."""
    try:
        return no_boundary(spec, passage, kept=kept, text=text)
    except ExactnessError:
        return text[: max(0, kept - 1)].rstrip() + "\ufffd"


@pytest.mark.parametrize("kind", ["o200k", "hf gpt2", "hf qwen"])
@pytest.mark.parametrize(
    ("beginning", "match"), [(no_boundary, "ids are no text"), (replaced, "is no beginning of the passage")]
)
def test_a_cut_ends_at_a_character(
    kind: str, beginning: Callable[..., str], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "_beginning", beginning)
    refused(EVERY_KIND[kind](), match)


def test_only_the_last_by_relevance_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    select = budget.select_within_budget

    def always(spec: TokenSpec, passages: Sequence[ContextPassage], **options: int) -> list[ContextPassage]:
        return select(spec, passages, max_context_tokens=options["max_context_tokens"], cut_last=True)

    monkeypatch.setattr(assembly, "select_within_budget", always)
    refused(load_spec("cl100k_base/plain"), "another passage than the last by relevance is cut")


def test_a_cut_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsaid(spec: TokenSpec, passage: ContextPassage, *, room_tokens: int) -> ContextPassage | None:
        beginning = cutting.cut_passage(spec, passage, room_tokens=room_tokens)
        return None if beginning is None else replace(beginning, cut=False)

    monkeypatch.setattr(budget, "cut_passage", unsaid)
    refused(load_spec("cl100k_base/plain"), "whether the budget left something out|the context differs")


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_question_is_one_run_with_its_prefix(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def apart(spec: TokenSpec, question: str) -> TokenIds:
        encode = spec.tokenizer.encode
        suffix = reference_ids(spec.frame.suffix, spec.tokenizer)
        return np.concatenate((encode(spec.frame.question_prefix), encode(question), suffix))

    monkeypatch.setattr(assembly, "question_ids", apart)
    refused(EVERY_KIND[kind](), r"the prompt differs .*passages=\(\), question='.{0,8}'")
