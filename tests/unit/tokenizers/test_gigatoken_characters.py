"""Every character this Python knows is of the same kind to the twin and to its reference, whatever the vocabulary.

Real vocabularies hide most of the edges at which text is split. The vocabulary here shows them: it has a token for the
first byte of every character behind, and its last byte before, a letter, a digit, a full stop, white space.
"""

import base64
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiktoken
from tokenizers import Tokenizer

from pipeline.tokenizers import vocabulary_definition
from pipeline.tokenizers.byte_level import byte_of_character
from pipeline.tokenizers.unicode_versions import assigned_characters
from tests.unit.tokenizers.hf_files import QWEN_PATTERN

pytest.importorskip("gigatoken")

LLAMA3_PATTERN = QWEN_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
SURROUNDINGS = ("X'll", "aX", "AX", "1X", ".X", " X", "\nX", "Xa", "XA", "X\n", "X/", "  X", "aX'll", "X's")
CHARACTERS_AT_ONCE = 128

BYTES = [bytes([value]) for value in range(256)]
LEADS, TRAILS = BYTES[0xC2:0xF5], BYTES[0x80:0xC0]
PAIRS = [
    *(before + lead for before in (b"a", b"A", b"1", b".", b" ", b"\n", b"'") for lead in LEADS),
    *(trail + after for trail in TRAILS for after in (b"a", b"A", b"1", b"\n", b"/")),
    *(b"'s", b"ll"),
]
RANKS = {token: rank for rank, token in enumerate([*BYTES, *PAIRS, b"'ll"])}

Encode = Callable[[str], list[int]]


def both_of_tiktoken(encoding: str, scheme: str, folder: Path) -> tuple[Encode, Encode]:
    from gigatoken.gigatoken_rs import BPETokenizer

    pattern = vocabulary_definition(encoding).pattern
    reference = tiktoken.Encoding("probe", pat_str=pattern, mergeable_ranks=RANKS, special_tokens={})
    path = folder / "ranks"
    path.write_bytes(b"\n".join(base64.b64encode(token) + b" %d" % rank for token, rank in RANKS.items()))
    twin = BPETokenizer.from_tiktoken(path, scheme, {})
    return reference.encode_ordinary, lambda text: twin.encode(text).tolist()


def both_of_file(pattern: str | None) -> tuple[Encode, Encode]:
    from gigatoken.gigatoken_rs import load_hf_json

    file = tokenizer_file(pattern)
    reference, twin = Tokenizer.from_str(file), load_hf_json(file)
    return lambda text: reference.encode(text).ids, lambda text: twin.encode(text).tolist()


def tokenizer_file(pattern: str | None) -> str:
    spelled = {byte: character for character, byte in byte_of_character().items()}

    def spell(token: bytes) -> str:
        return "".join(spelled[byte] for byte in token)

    splitter: dict[str, Any] = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None
    }  # fmt: skip
    if pattern is not None:
        split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        splitter = {"type": "Sequence", "pretokenizers": [split, splitter]}
    parts: dict[str, Any] = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    model = {
        "type": "BPE",
        "vocab": {spell(token): rank for token, rank in RANKS.items()},
        "merges": [*([spell(pair[:1]), spell(pair[1:])] for pair in PAIRS), [spell(b"'"), spell(b"ll")]],
    }
    return json.dumps({"version": "1.0", "added_tokens": [], **parts, "pre_tokenizer": splitter, "model": model})


def assigned() -> Iterator[str]:
    return map(chr, np.flatnonzero(assigned_characters()).tolist())


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda folder: both_of_tiktoken("o200k_base", "o200k", folder), id="o200k_base"),
        pytest.param(lambda folder: both_of_tiktoken("cl100k_base", "cl100k", folder), id="cl100k_base"),
        pytest.param(lambda _folder: both_of_file(None), id="gpt2"),
        pytest.param(lambda _folder: both_of_file(QWEN_PATTERN), id="qwen"),
        pytest.param(lambda _folder: both_of_file(LLAMA3_PATTERN), id="llama3"),
    ],
)
def test_every_character_is_of_one_kind_to_both(make: Callable[[Path], tuple[Encode, Encode]], tmp_path: Path) -> None:
    reference, twin = make(tmp_path)
    assert reference("X'll")[1:] != reference("-'ll")[1:], "this vocabulary shows where text is split"
    characters = assigned()
    while several := list(islice(characters, CHARACTERS_AT_ONCE)):
        for surroundings in SURROUNDINGS:
            text = "\n\n".join(surroundings.replace("X", character) for character in several)
            assert twin(text) == reference(text), ascii(text)
