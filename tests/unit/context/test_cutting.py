"""One passage cut to a room: what is left is the beginning of a text, with the ids of that text."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.context import ContextPassage, assemble, cutting, prompt_ids
from pipeline.context.cutting import cut_passage, passage_text
from pipeline.framing import TokenIds, packaged_frame, prompt_segments, reference_ids
from pipeline.tokenizers import EncodedPassage, TokenSpec, build_spec, encode_passage, load_hf, load_spec
from tests.support import sample
from tests.unit.context.builders import EVERY_KIND, found, lines_chat, slash_chat
from tests.unit.tokenizers.hf_files import hf_spec, tokenizer_json, with_part
from tests.unit.tokenizers.variants import o200k_colon

O200K = load_spec("o200k_base/plain")
PROSE = sample.documents()[0]["text"].strip()
EMOJI = "\U0001f9d1\U0001f3fb\u200d\u2764\ufe0f\u200d\U0001f48b\u200d\U0001f9d1\U0001f3ff"


def cut(spec: TokenSpec, text: str, room_tokens: int) -> ContextPassage | None:
    return cut_passage(spec, found(spec, text), room_tokens=room_tokens)


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    "text", [PROSE[:600], EMOJI * 6, "漢字仮名" * 12, "\u1112\u1161\u11ab" * 12, "a. /b " * 20, "=" * 90]
)
def test_a_cut_of_any_length_is_the_beginning_of_its_passage(kind: str, text: str) -> None:
    spec = EVERY_KIND[kind]()
    passage = found(spec, text.strip())
    whole = passage_text(spec, passage)
    for room in range(passage.token_count):
        beginning = cut_passage(spec, passage, room_tokens=room)
        if beginning is None:
            assert len(encode_passage(spec, whole[0]).ids) > room
            continue
        left = passage_text(spec, beginning)
        assert beginning.cut
        assert beginning.token_count <= room
        assert whole.startswith(left)
        assert left == left.strip() != ""
        assert encode_passage(spec, left).ids.tolist() == beginning.ids.tolist()


def test_a_cut_of_prose_wastes_at_most_two_ids_and_encodes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    passage = found(O200K, PROSE[:1500].strip())
    encoded: list[str] = []

    def counting(spec: TokenSpec, text: str) -> EncodedPassage:
        encoded.append(text)
        return encode_passage(spec, text)

    monkeypatch.setattr(cutting, "encode_passage", counting)
    rooms = range(20, passage.token_count)
    for room in rooms:
        beginning = cut_passage(O200K, passage, room_tokens=room)
        assert beginning is not None
        assert room - beginning.token_count <= 2
    assert len(encoded) <= 1.1 * len(rooms)


@given(
    unit=st.sampled_from(
        ["漢", "\U0001fae0", "\u0301", "=", "/", "ab", EMOJI, "\u0e01", ". ", "9", "\u200d", "\u0628"]
    ),
    room=st.integers(1, 3000),
)
@example(unit="\U0001fae0", room=2048)
def test_long_runs_are_cut_in_few_attempts(unit: str, room: int) -> None:
    passage = found(O200K, (unit * 4096).encode()[:8192].decode(errors="ignore").strip())
    if room >= passage.token_count:
        return
    encoded: list[str] = []

    def counting(spec: TokenSpec, text: str) -> EncodedPassage:
        encoded.append(text)
        return encode_passage(spec, text)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cutting, "encode_passage", counting)
        beginning = cut_passage(O200K, passage, room_tokens=room)
    assert len(encoded) <= (4 if room > 16 else 17)
    assert beginning is not None or len(encode_passage(O200K, unit[0]).ids) > room


def test_a_cut_passage_keeps_what_is_known_of_it() -> None:
    passage = replace(
        found(O200K, PROSE[:600].strip(), document_id="d", ordinal=7, generation=3), source="miss", score=0.25
    )
    beginning = cut_passage(O200K, passage, room_tokens=40)
    assert beginning is not None
    same = ("passage_key", "document_id", "ordinal", "generation", "score", "source")
    assert [getattr(beginning, name) for name in same] == [getattr(passage, name) for name in same]


def test_a_cut_can_be_cut_again() -> None:
    once = cut(O200K, PROSE[:600].strip(), 60)
    assert once is not None
    twice = cut_passage(O200K, once, room_tokens=30)
    assert twice is not None
    assert passage_text(O200K, once).startswith(passage_text(O200K, twice))


def test_white_space_before_a_cut_goes() -> None:
    text = "one" + " \n\t" * 30 + "two"
    for room in range(2, found(O200K, text).token_count - 1):
        beginning = cut(O200K, text, room)
        assert beginning is not None
        assert passage_text(O200K, beginning) == "one"


def test_a_character_of_several_ids_stays_whole() -> None:
    spec = hf_spec("small")
    text = "a" + "\U0001fae0" * 9  # four ids each
    passage = found(spec, text)
    for room in range(3, passage.token_count):
        beginning = cut_passage(spec, passage, room_tokens=room)
        assert beginning is not None
        assert set(passage_text(spec, beginning)) <= {"a", "\U0001fae0"}


def test_ids_that_share_characters_for_long_are_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "_SPELLINGS", 1)
    spec = hf_spec("small")
    text = "\U0001fae0" * 40
    for room in range(30, found(spec, text).token_count):
        beginning = cut(spec, text, room)
        assert beginning is not None
        assert text.startswith(passage_text(spec, beginning))


def test_a_normalizer_that_spells_a_beginning_with_a_space_leaves_nothing_to_cut() -> None:
    """A passage has no white space at its ends, and a cut one must begin as the whole does."""
    content = tokenizer_json("qwen", with_part("normalizer", {"type": "NFKC"}))
    spec = build_spec(load_hf(content, name="compatible"), frame=packaged_frame("chatml"))
    assert passage_text(spec, found(spec, "\u00a8 and more")) == " \u0308 and more"
    assert cut(spec, "\u00a8 and more", 4) is None
    assert cut(spec, "and more \u00a8 still", 3) is not None


def test_a_separator_that_the_normalizer_changes_leaves_nothing_to_cut() -> None:
    frame = replace(packaged_frame("chatml"), name="wide", separator=" \u212b\n")
    spec = build_spec(hf_spec("qwen").tokenizer, frame=frame)
    assert cut(spec, "some words to cut", 6) is None


def test_a_separator_that_begins_with_text_is_never_left_in_a_cut() -> None:
    frame = replace(packaged_frame("plain"), name="ruled", separator="\n-- -- -- -- -- -- --\n")
    spec = build_spec(O200K.tokenizer, frame=frame)
    passage = found(spec, "some words")
    for room in range(passage.token_count):
        beginning = cut_passage(spec, passage, room_tokens=room)
        assert beginning is None or passage_text(spec, beginning) in ("some", "some words", "s")


def test_ids_cut_and_a_separator_behind_them_are_wrong_where_a_text_cut_is_right() -> None:
    """Why nobody cuts ids: in o200k_base a full stop and the line feeds after it are one token."""
    separator = O200K.tokenizer.encode("\n\n")
    passage = found(O200K, "It ends. It goes on")
    ids = np.concatenate((passage.ids[:3], separator))
    beginning = cut_passage(O200K, passage, room_tokens=4)
    assert beginning is not None
    assert O200K.tokenizer.decode(ids) == "It ends.\n\n" == O200K.tokenizer.decode(beginning.ids)
    assert ids.tolist() != beginning.ids.tolist() == O200K.tokenizer.encode("It ends.\n\n").tolist()


@pytest.mark.parametrize("make_spec", [o200k_colon, slash_chat, lines_chat])
def test_beside_unsafe_edges_a_smaller_cut_is_tried_before_the_passage_is_left_out(
    make_spec: Callable[[], TokenSpec],
) -> None:
    spec = make_spec()
    context = ["/" * 7, "b/", "/c/ d/ e/ f/ " * 4 + "end"]
    whole = assemble(spec, [found(spec, text) for text in context], max_context_tokens=10_000)
    cuts = 0
    for budget in range(len(spec.prefix_ids), len(whole.token_ids)):
        assembled = assemble(spec, [found(spec, text) for text in context], max_context_tokens=budget)
        standing = [passage_text(spec, passage) for passage in assembled.passages]
        expected = reference_ids(prompt_segments(spec.frame, standing, "/"), spec.tokenizer)
        assert prompt_ids(spec, assembled, "/").tolist() == expected.tolist()
        assert len(assembled.token_ids) <= budget
        cuts += bool(assembled.passages) and assembled.passages[-1].cut
    assert cuts > 25


def test_normalized_text_is_cut_to_normalized_text() -> None:
    """Cut text is decoded, so it went through NFC before; going through it again changes nothing."""
    spec = hf_spec("qwen")
    text = "e\u0301 \u1112\u1161\u11ab \u212b a\u0323\u0302 \u0958 " * 12 + "end"
    passage = found(spec, text)
    for room in range(4, passage.token_count):
        beginning = cut_passage(spec, passage, room_tokens=room)
        assert beginning is not None
        left = passage_text(spec, beginning)
        again: TokenIds = spec.tokenizer.encode(left)
        assert spec.tokenizer.decode(again) == left
