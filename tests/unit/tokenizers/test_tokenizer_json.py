"""What no `tokenizer.json` may have, each refused with what it would do."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from pipeline.errors import ExactnessError, InvalidInput, TooLarge
from pipeline.framing import packaged_frame
from pipeline.tokenizers import MAX_TOKENIZER_BYTES, build_spec, load_hf, parse_tokenizer_json
from pipeline.tokenizers.tokenizer_json import MAX_TOKENIZER_DEPTH
from tests.support import sample
from tests.unit.tokenizers.hf_files import added, nested, tokenizer_json, with_added, with_part

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

REFUSED: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (with_added(added("<mask>", 7000, lstrip=True)), r"'<mask>' swallows white space before it .*'a <mask>'"),
    (with_added(added("<|user|>", 7000, rstrip=True)), r"'<\|user\|>' swallows white space after it"),
    (with_added(added("<w>", 7000, single_word=True)), "only beside white space"),
    (with_added(added("  ", 7000)), "'  ' .id 7000. is ordinary text"),
    (with_added(added("    ", 7000)), "is ordinary text"),
    (with_added(added("assistant", 7000)), "is ordinary text"),
    (with_added(added("!", 7000)), "is ordinary text"),
    (with_added(added("<|", 7000)), "is ordinary text"),
    (with_added(added("<|im", 7000)), r"'<\|im' is part of, or overlaps"),
    (
        with_added(added("[<|im_end|>]", 7000)),
        r"'<\|im_end\|>' is part of, or overlaps, added token '\[<\|im_end\|>\]'",
    ),
    (with_added(added("|>>>", 7000)), r"overlaps"),
    (with_added(added("<think>", 7000)), "listed twice"),
    (with_added(added("<other>", 1)), "listed twice"),
    (with_added(added("", 7000)), "added_tokens"),
    (with_added(added("<x>", -1)), "added_tokens"),
    (with_part("added_tokens", "none"), "added_tokens"),
    (with_part("model.type", "Unigram"), "model of type Unigram"),
    (with_part("model.type", "WordPiece"), "model of type WordPiece"),
    (with_part("model.dropout", 0.1), "drops merges at random"),
    (with_part("model.byte_fallback", 1), "byte_fallback"),
    (with_part("model.continuing_subword_prefix", "##"), "continuing_subword_prefix '##'"),
    (with_part("model.end_of_word_suffix", "</w>"), "end_of_word_suffix"),
    (with_part("model.vocab", {}), "no vocabulary"),
    (with_part("model.vocab", {"a": "1"}), "ids are no different small integers"),
    (with_part("model.vocab", {"a": 1, "b": 1}), "ids are no different small integers"),
    (with_part("model.merges", None), "no merges"),
    (with_part("model.merges", ["a b c"]), "no pair"),
    (with_part("model.merges", [["q", "no such token"]]), "cannot be loaded"),
    (with_part("model", []), "its `model` is no object"),
    (with_part("normalizer", {"type": "Lowercase"}), "normalizer of type Lowercase"),
    (with_part("normalizer", {"type": "Prepend", "prepend": "▁"}), "normalizer of type Prepend"),
    (
        with_part("normalizer", {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "StripAccents"}]}),
        "normalizer of type StripAccents",
    ),
    (with_part("pre_tokenizer", None), "no ByteLevel pre-tokenizer"),
    (with_part("pre_tokenizer", {"type": "Whitespace"}), "pre-tokenizer Whitespace, which loses text"),
    (with_part("pre_tokenizer", {"type": "Metaspace", "replacement": "▁"}), "puts a space before every text"),
    (with_part("pre_tokenizer", {**BYTE_LEVEL, "add_prefix_space": True}), "add_prefix_space"),
    (
        with_part(
            "pre_tokenizer",
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"String": " "}, "behavior": "Removed", "invert": False},
                    BYTE_LEVEL,
                ],
            },
        ),
        "loses text",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_what_cannot_be_exact_is_refused_with_its_reason(
    change: Callable[[dict[str, Any]], None], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_hf(tokenizer_json("gpt2", change), name="refused")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b"\xff", b'{"model": null}'])
def test_what_is_no_tokenizer_json_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"this tokenizer\.json"):
        load_hf(content, name="none")


def test_a_file_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(TooLarge, match="over 33,554,432 bytes"):
        parse_tokenizer_json(b"{" * (MAX_TOKENIZER_BYTES + 1))


def test_a_control_token_that_merges_make_of_text_is_refused() -> None:
    def change(file: dict[str, Any]) -> None:
        model = file["model"]
        model["vocab"] |= {"<s": 7001, "<s>": 7000}
        model["merges"] += [["<", "s"], ["<s", ">"]]
        file["added_tokens"].append(added("<s>", 7000, special=True))

    with pytest.raises(InvalidInput, match=r"merges make '<s>' \(id 7000\) of text"):
        load_hf(tokenizer_json("gpt2", change), name="merging")


def test_a_control_token_with_two_ids_is_refused() -> None:
    change = with_part("model.vocab.<|im_end|>", 8000)
    with pytest.raises(InvalidInput, match=r"'<\|im_end\|>' has id 2, and 8000 in the vocabulary"):
        load_hf(tokenizer_json("gpt2", change), name="two")


def test_ignoring_merges_does_not_make_control_tokens_of_text() -> None:
    """With `ignore_merges` a word that is in the vocabulary becomes its id as a whole: control tokens are taken out."""

    def change(file: dict[str, Any]) -> None:
        file["model"]["ignore_merges"] = True
        file["pre_tokenizer"] = BYTE_LEVEL | {"use_regex": False}

    ours = load_hf(tokenizer_json("gpt2", change), name="whole")
    assert ours.special_ids.isdisjoint(ours.encode("<|im_end|>").tolist())
    whole = Tokenizer.from_str(tokenizer_json("gpt2", change).decode())
    whole.encode_special_tokens = True
    assert whole.encode("<|im_end|>").ids == [ours.control_id("<|im_end|>")]


def test_a_normalized_added_token_is_refused_where_text_is_normalized() -> None:
    change = with_added(added("<é>!", 7000, normalized=True))
    load_hf(tokenizer_json("gpt2", change), name="plain")
    with pytest.raises(InvalidInput, match="searched for in normalized text"):
        load_hf(tokenizer_json("qwen", change), name="normalized")


def test_sentencepiece_tokenizers_trained_here_are_refused() -> None:
    texts = [document["text"] for document in sample.documents()[:20]]
    unigram = Tokenizer(models.Unigram())
    unigram.pre_tokenizer = pre_tokenizers.Metaspace()
    unigram.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=300, show_progress=False))
    with pytest.raises(InvalidInput, match="model of type Unigram"):
        load_hf(unigram.to_str().encode(), name="unigram")
    metaspace = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    metaspace.normalizer = normalizers.Prepend("▁")
    metaspace.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    with pytest.raises(InvalidInput, match="byte_fallback"):
        load_hf(metaspace.to_str().encode(), name="metaspace")


def test_a_frame_that_the_tokenizer_does_not_cut_is_refused_with_the_example() -> None:
    """GPT-2's pattern cuts white space at the end of a text otherwise than before a letter."""
    with pytest.raises(
        ExactnessError, match=r"prefix of frame plain: .*\\n\\nD' ends in the ids \[.*\\n\\n' ends in the ids"
    ):
        build_spec(load_hf(tokenizer_json(), name="gpt2"), frame=packaged_frame("plain"))


@pytest.mark.parametrize("place", ["pre_tokenizer", "normalizer", "decoder", "model.more"])
@pytest.mark.parametrize("depth", [MAX_TOKENIZER_DEPTH // 2, 95, 400, 5000])
def test_nesting_over_the_limit_is_refused_in_one_sentence(place: str, depth: int) -> None:
    parts = b'{"type":"Sequence","pretokenizers":[' * depth + b"{}" + b"]}" * depth
    content = tokenizer_json("small", with_part(place, "HERE")).replace(b'"HERE"', parts)
    with pytest.raises(InvalidInput, match=r"^this tokenizer\.json is (not JSON: )?nested more than (64|200) deep$"):
        load_hf(content, name="deep")


def test_nesting_within_the_limit_is_loaded() -> None:
    assert load_hf(tokenizer_json("small", with_part("pre_tokenizer", nested(25))), name="deep").encode("a b").size
