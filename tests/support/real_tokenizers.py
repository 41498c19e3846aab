"""Real tokenizers as Hugging Face writes them: Qwen3 and Llama 3, rebuilt from the vocabularies in `quicktok-v1`.

The package holds tokens with their ranks; a `tokenizer.json` says the same with merges. What else stands in the models'
own files (normalizer, split pattern, flags of added tokens) is written out here as it is published. The specs that
Forefill promises are here, too, by their names.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from pipeline.framing import packaged_frame
from pipeline.tokenizers import TokenSpec, build_spec, load_hf, load_spec
from pipeline.tokenizers.byte_level import byte_of_character
from tests.support.llm import smollm2_tokenizer_json
from tests.support.packages import package_folder

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA_PATTERN = QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

REAL_SPECS = (
    "o200k_base/plain",
    "cl100k_base/plain",
    "o200k_harmony/harmony",
    "qwen3/chatml",
    "smollm2/chatml",
    "llama3/llama3",
)
"""Every kind of spec that must be exact, with the vocabularies of real models."""

_NOT_SPECIAL = frozenset(
    (
        *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"),
        *("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
    )
)
"""Added tokens that Qwen3's file does not call special."""


@cache
def qwen3_tokenizer_json() -> bytes:
    """Return Qwen3's `tokenizer.json`; takes some seconds once."""
    ranks = real_ranks("qwen3")
    return _file(
        ranks,
        merges=_one_merge_each(ranks),
        added={name: (number, name not in _NOT_SPECIAL) for name, number in _specials("qwen3").items()},
        pattern=QWEN_PATTERN,
        normalizer={"type": "NFC"},
        ignore_merges=False,
        begin=None,
    )


@cache
def llama3_tokenizer_json() -> bytes:
    """Return Llama 3's `tokenizer.json`; takes some seconds once."""
    ranks = real_ranks("llama3")
    return _file(
        ranks,
        merges=_every_merge(ranks),
        added={name: (number, True) for name, number in _specials("llama3").items()},
        pattern=LLAMA_PATTERN,
        normalizer=None,
        ignore_merges=True,
        begin="<|begin_of_text|>",
    )


@cache
def real_spec(spec_id: str) -> TokenSpec:
    """Return one of `REAL_SPECS`; skips the calling test where its vocabulary is not installed."""
    name, _, frame = spec_id.partition("/")
    files = {"qwen3": qwen3_tokenizer_json, "smollm2": smollm2_tokenizer_json, "llama3": llama3_tokenizer_json}
    if name not in files:
        return load_spec(spec_id)
    return build_spec(load_hf(files[name](), name=name), frame=packaged_frame(frame))


def real_ranks(name: str) -> dict[bytes, int]:
    """Return the tokens of `qwen3` or `llama3` with their ids; lower ids merge first.

    The file is a count, then for each token its length, its bytes, its id.
    """
    data = (package_folder("quicktok") / "data" / f"{name}.vocab").read_bytes()
    (count,) = struct.unpack_from("<I", data)
    place, ranks = 4, {}
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, place)
        token = data[place + 2 : place + 2 + length]
        (ranks[token],) = struct.unpack_from("<I", data, place + 2 + length)
        place += 6 + length
    return ranks


def _specials(name: str) -> dict[str, int]:
    """Read added tokens: a count, then for each its id, its length, its text."""
    data = (package_folder("quicktok") / "data" / f"{name}.special").read_bytes()
    (count,) = struct.unpack_from("<I", data)
    place, specials = 4, {}
    for _ in range(count):
        number, length = struct.unpack_from("<IH", data, place)
        specials[data[place + 6 : place + 6 + length].decode()] = number
        place += 6 + length
    return specials


def _one_merge_each(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield for each token the two that byte-pair encoding makes it of, as the published merges list it."""
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            left, right = _last_pair(token, ranks)
            yield left, right


def _last_pair(token: bytes, ranks: Mapping[bytes, int]) -> Sequence[bytes]:
    """Merge a token's bytes until only its own merge is left."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        merged = [ranks.get(left + right, len(ranks)) for left, right in pairwise(parts)]
        place = merged.index(min(merged))
        assert merged[place] < ranks[token], f"{token!r} cannot be made by merges"
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts


def _every_merge(ranks: Mapping[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """Yield for each token every pair of tokens that spells it, as the conversion of tiktoken's files lists them."""
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = ((token[:place], token[place:]) for place in range(1, len(token)))
        known = (pair for pair in pairs if pair[0] in ranks and pair[1] in ranks)
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _file(
    ranks: Mapping[bytes, int],
    *,
    merges: Iterator[tuple[bytes, bytes]],
    added: Mapping[str, tuple[int, bool]],
    pattern: str,
    normalizer: dict[str, Any] | None,
    ignore_merges: bool,
    begin: str | None,
) -> bytes:
    characters = {byte: character for character, byte in byte_of_character().items()}

    def spelled(token: bytes) -> str:
        return token.decode("latin-1").translate(characters)

    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": number, "content": name, **flags, "special": special} for name, (number, special) in added.items()
        ],
        "normalizer": normalizer,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
                byte_level,
            ],
        },
        "post_processor": byte_level if begin is None else _beginning_with(begin, added[begin][0]),
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": ignore_merges,
            "vocab": {spelled(token): number for token, number in ranks.items()},
            "merges": [[spelled(left), spelled(right)] for left, right in merges],
        },
    }
    return json.dumps(file, ensure_ascii=False).encode()


def _beginning_with(token: str, number: int) -> dict[str, Any]:
    """Return the post-processor that puts a token before whatever is encoded."""
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
