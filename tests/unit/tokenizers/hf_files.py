"""`tokenizer.json` files as models ship them, trained in a moment on the sample corpus."""

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from pipeline.framing import packaged_frame
from pipeline.tokenizers import TokenSpec, build_spec, load_hf
from tests.support import sample

_VOCABULARY = 1500
_SMALL = 300
CONTROLS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@cache
def _trained(family: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    if family == "qwen":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(QWEN_PATTERN), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_SMALL if family == "small" else _VOCABULARY,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(CONTROLS),
    )
    tokenizer.train_from_iterator((document["text"] for document in sample.documents()[:150]), trainer)
    tokenizer.add_tokens([AddedToken("<think>", normalized=False), AddedToken("</think>", normalized=False)])
    file = json.loads(tokenizer.to_str())
    if (
        family == "gpt2"
    ):  # as in every large vocabulary of this family: two line feeds at the end of a text are one token
        file["model"]["vocab"]["ĊĊ"] = _VOCABULARY
        file["model"]["merges"].append(["Ċ", "Ċ"])
        for token in file["added_tokens"]:
            token["id"] += token["id"] >= _VOCABULARY
    return json.dumps(file)


def tokenizer_json(family: str = "gpt2", change: Callable[[dict[str, Any]], None] | None = None) -> bytes:
    """Return a file of a family (`gpt2`, `small`, or `qwen` with NFC), changed by a function of its fields."""
    file: dict[str, Any] = json.loads(_trained(family))
    if change is not None:
        change(file)
    return json.dumps(file).encode()


def added(content: str, number: int, **flags: bool) -> dict[str, Any]:
    """Return one entry of `added_tokens`."""
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": number, "content": content, **dict.fromkeys(names, False), **flags}


def with_added(*tokens: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return a change that adds tokens."""

    def change(file: dict[str, Any]) -> None:
        file["added_tokens"] += tokens

    return change


def with_part(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change that replaces a component, or with `model.x` an option of the model."""

    def change(file: dict[str, Any]) -> None:
        *outer, last = name.split(".")
        target = file
        for each in outer:
            target = target[each]
        target[last] = value

    return change


def nested(depth: int) -> dict[str, Any]:
    """Return a pre-tokenizer within so many Sequences."""
    part: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    for _ in range(depth):
        part = {"type": "Sequence", "pretokenizers": [part]}
    return part


def without_bytes(spelled: Sequence[str]) -> Callable[[dict[str, Any]], None]:
    """Return a change that takes single-byte tokens out of the vocabulary, and the merges that need them."""

    def change(file: dict[str, Any]) -> None:
        model = file["model"]
        model["merges"] = [pair for pair in model["merges"] if not any(byte in "".join(pair) for byte in spelled)]
        for token in [token for token in model["vocab"] if any(byte in token for byte in spelled)]:
            del model["vocab"][token]

    return change


@cache
def hf_spec(family: str) -> TokenSpec:
    """A chat spec of a family."""
    return build_spec(load_hf(tokenizer_json(family), name=family), frame=packaged_frame("chatml"))
