"""Reading a Hugging Face `tokenizer.json`: what of it decides ids, and the text encoder made of it.

The text encoder is the file with `added_tokens` emptied and no post-processor, since the library's own switch leaves
tokens such as `<think>` alive. What cannot be exact piece by piece is refused here with a reason, before it is tried.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from pipeline.errors import InvalidInput, TooLarge
from pipeline.json_input import read_json
from pipeline.tokenizers.added_tokens import AddedToken, check_added_tokens, parse_added_tokens
from pipeline.tokenizers.byte_level import missing_bytes
from pipeline.tokenizers.tokenizer import TokenizerIdentity

MAX_TOKENIZER_BYTES = 32 * 1024 * 1024
"""Bytes of a file's content."""

MAX_TOKENIZER_DEPTH = 64
"""Objects and lists within one another; models' own files have ten. The library reads 128."""

_NORMALIZERS = frozenset(("NFC", "NFD", "NFKC", "NFKD"))
_SPLITTERS = frozenset(("Split", "Digits", "Punctuation", "ByteLevel"))
_MODEL_OPTIONS = ("unk_token", "fuse_unk", "byte_fallback", "ignore_merges")


@dataclass(frozen=True, slots=True, eq=False)
class TokenizerDefinition:
    """A `tokenizer.json` that can be used exactly."""

    sha256: str
    """Of its bytes, hex: what it is stored under."""
    text_json: bytes
    """The file of the text encoder: without added tokens, post-processor, truncation and padding."""
    missing_bytes: bytes
    """Bytes of UTF-8 that no token spells; empty for nearly every model."""
    identity: TokenizerIdentity
    vocabulary_size: int
    """Every id is below this, those of added tokens included."""


def parse_tokenizer_json(content: bytes) -> TokenizerDefinition:
    """Read a file's content and refuse what cannot be used exactly.

    Raises:
        TooLarge: It is over `MAX_TOKENIZER_BYTES`.
        InvalidInput: It is no `tokenizer.json`, or one whose ids cannot be put together from pieces.
    """
    if len(content) > MAX_TOKENIZER_BYTES:
        raise TooLarge(f"the tokenizer.json is over {MAX_TOKENIZER_BYTES:,} bytes", item="tokenizer_json")
    file = _parse(content)
    model = _check_model(file.get("model"))
    _check_normalizer(file.get("normalizer"))
    _check_pre_tokenizer(file.get("pre_tokenizer"))
    vocabulary, merges = _vocabulary(model), _merges(model)
    added = parse_added_tokens(file.get("added_tokens"))
    check_added_tokens(
        added,
        vocabulary=vocabulary,
        merged=("".join(pair) for pair in merges),
        has_normalizer=file.get("normalizer") is not None,
    )
    control = {token.content for token in added}
    text_vocabulary = {token: number for token, number in vocabulary.items() if token not in control}
    return TokenizerDefinition(
        sha256=hashlib.sha256(content).hexdigest(),
        text_json=_encoder_json(file, model | {"vocab": text_vocabulary}, added_tokens=[]),
        missing_bytes=missing_bytes(text_vocabulary),
        identity=_identity(file, model, vocabulary, merges, added),
        vocabulary_size=1 + max((*vocabulary.values(), *(token.id for token in added))),
    )


def whole_file_json(content: bytes) -> bytes:
    """Return a file with its added tokens, but without what else surrounds or cuts a text.

    Raises:
        InvalidInput: It is no `tokenizer.json`.
    """
    file = _parse(content)
    return _encoder_json(file, file["model"], added_tokens=file.get("added_tokens") or [])


def _parse(content: bytes) -> dict[str, Any]:
    try:
        file = read_json(content)
    except InvalidInput as error:
        raise _refused(str(error)) from error
    if not isinstance(file, dict) or "model" not in file:
        raise _refused("is no Hugging Face tokenizer.json: it has no `model`")
    _check_depth(file)
    return file


def _check_depth(file: dict[str, Any]) -> None:
    """Refuse what is too deep for everything that goes through a file part by part, before anything does."""
    level: list[Any] = [file]
    for _ in range(MAX_TOKENIZER_DEPTH):
        level = [inner for outer in level for inner in _inner(outer) if isinstance(inner, dict | list)]
        if not level:
            return
    raise _refused(f"is nested more than {MAX_TOKENIZER_DEPTH} deep")


def _inner(outer: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return outer.values() if isinstance(outer, dict) else outer


def _check_model(model: Any) -> dict[str, Any]:
    if not isinstance(model, dict):
        raise _refused("is no Hugging Face tokenizer.json: its `model` is no object")
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind != "BPE":
        raise _refused(f"has a model of type {kind}: only byte-level BPE cuts where prompts are put together")
    if model.get("dropout"):
        raise _refused(f"drops merges at random (dropout {model['dropout']}): a text has no ids of its own")
    for option in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(option):
            raise _refused(f"marks words ({option} {model[option]!r}): the ids of a piece depend on where it stands")
    if model.get("byte_fallback"):
        raise _refused("spells unknown characters by byte_fallback: only byte-level BPE is supported")
    return model


def _check_normalizer(normalizer: Any) -> None:
    for part in _parts(normalizer, "normalizers"):
        if part.get("type") not in _NORMALIZERS:
            raise _refused(
                f"has a normalizer of type {part.get('type')}, which changes text: only Unicode's own forms "
                f"({', '.join(sorted(_NORMALIZERS))}) are supported"
            )


def _check_pre_tokenizer(pre_tokenizer: Any) -> None:
    parts = _parts(pre_tokenizer, "pretokenizers")
    for part in parts:
        kind = part.get("type")
        if kind == "Metaspace":
            raise _refused("has the pre-tokenizer Metaspace, which puts a space before every text it encodes")
        if kind not in _SPLITTERS or part.get("behavior") == "Removed":
            raise _refused(f"has the pre-tokenizer {kind}, which loses text: {', '.join(sorted(_SPLITTERS))} do not")
        if part.get("add_prefix_space"):
            raise _refused(
                "puts a space before every text it encodes (add_prefix_space): a text's ids depend on where it stands"
            )
    if not any(part.get("type") == "ByteLevel" for part in parts):
        raise _refused("has no ByteLevel pre-tokenizer: only byte-level BPE cuts where prompts are put together")


def _parts(component: Any, field: str) -> list[dict[str, Any]]:
    """Return a component's parts, a sequence taken apart."""
    if component is None:
        return []
    if not isinstance(component, dict):
        raise _refused("has a component that is no object")
    if component.get("type") != "Sequence":
        return [component]
    inner = component.get(field)
    if not isinstance(inner, list):
        raise _refused(f"has a Sequence without {field}")
    return [part for each in inner for part in _parts(each, field)]


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict) or not vocabulary:
        raise _refused("has no vocabulary")
    numbers = set(vocabulary.values())
    if any(type(number) is not int or not 0 <= number < 2**31 for number in numbers) or len(numbers) < len(vocabulary):
        raise _refused("has a vocabulary whose ids are no different small integers")
    return vocabulary


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the merges as pairs; older files write `"a b"`, newer ones `["a", "b"]`."""
    merges = model.get("merges")
    if not isinstance(merges, Sequence) or isinstance(merges, str):
        raise _refused("has no merges")
    pairs = [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]
    if not all(len(pair) == 2 and all(isinstance(part, str) for part in pair) for pair in pairs):
        raise _refused("has a merge that is no pair of tokens")
    return [(left, right) for left, right in pairs]


def _encoder_json(file: Mapping[str, Any], model: Mapping[str, Any], *, added_tokens: Sequence[Any]) -> bytes:
    return orjson.dumps(
        {
            **file,
            "model": model,
            "added_tokens": added_tokens,
            "post_processor": None,
            "truncation": None,
            "padding": None,
        }
    )


def _identity(
    file: Mapping[str, Any],
    model: Mapping[str, Any],
    vocabulary: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    added: Sequence[AddedToken],
) -> TokenizerIdentity:
    normalizer = file.get("normalizer")
    return TokenizerIdentity(
        vocabulary_sha256=hashlib.sha256(_canonical({"vocab": vocabulary, "merges": merges})).hexdigest(),
        pattern=_canonical(file.get("pre_tokenizer")).decode(),
        special_tokens={token.content: token.id for token in added},
        normalizer="" if normalizer is None else _canonical(normalizer).decode(),
        options=_canonical({"model": "BPE", **{name: model.get(name) for name in _MODEL_OPTIONS}}).decode(),
    )


def _canonical(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _refused(reason: str) -> InvalidInput:
    return InvalidInput(f"this tokenizer.json {reason}", item="tokenizer_json")
