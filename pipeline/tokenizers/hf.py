"""Hugging Face's `tokenizers` as a `Tokenizer`: byte-level BPE from the content of a `tokenizer.json`.

Text goes through an encoder that knows no added token, so whatever it spells stays text. Decoding is done here, byte
by byte, since the library replaces what is no character instead of refusing it.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata

import numpy as np
import orjson
from tokenizers import Tokenizer as Backend

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import RaggedIds, TokenIds
from pipeline.tokenizers.byte_level import spelled_bytes
from pipeline.tokenizers.refusals import raise_for_panic, require_utf8
from pipeline.tokenizers.tokenizer_json import TokenizerDefinition, parse_tokenizer_json, whole_file_json
from pipeline.tokenizers.unicode_versions import is_composed
from pipeline.tokenizers.vocabulary import known_encodings

_NFC = '{"type":"NFC"}'
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")


class HfTokenizer:
    """The text encoder of one `tokenizer.json`, and its added tokens as control tokens."""

    source = "hf"

    def __init__(self, definition: TokenizerDefinition, *, name: str) -> None:
        self.encoding = name
        self.library = f"tokenizers {metadata.version('tokenizers')}"
        self.vocabulary_size = definition.vocabulary_size
        self.identity = definition.identity
        self.special_ids = frozenset(definition.identity.special_tokens.values())
        self.sha256 = definition.sha256
        """Of the file's bytes, hex."""
        self._missing_bytes = definition.missing_bytes
        self._backend = _built(definition.text_json)
        self._composes = definition.identity.normalizer == _NFC

    def __repr__(self) -> str:
        return f"<HfTokenizer {self.encoding} ({self.library})>"

    @property
    def reference(self) -> "HfTokenizer":
        """Return itself: nothing decides over it."""
        return self

    def canonical(self, text: str) -> bytes:
        """Return the UTF-8 that is split and merged: the text as the normalizer leaves it.

        Raises:
            InvalidInput: The text holds lone surrogates or a byte that the vocabulary cannot spell.
        """
        data = require_utf8(text)
        if self._missing_bytes:
            self._require_spelled(text)
        if text.isascii() or (self._composes and is_composed(text)):
            return data
        return self._normalized(text).encode()

    def merging_json(self) -> bytes:
        """Return the file of the text encoder without its normalizer: it gives `canonical` text the ids of `encode`."""
        return orjson.dumps(orjson.loads(self._backend.to_str()) | {"normalizer": None})

    def encode(self, text: str) -> TokenIds:
        """Return the ids of ordinary text.

        Raises:
            InvalidInput: The text holds lone surrogates or a byte that the vocabulary cannot spell, or the library
                gives up on it.
        """
        require_utf8(text)
        if self._missing_bytes:
            self._require_spelled(text)
        try:
            return np.array(self._backend.encode(text, add_special_tokens=False).ids, dtype=np.uint32)
        except Exception as error:  # the library raises nothing narrower
            raise InvalidInput(f"{self.encoding} cannot encode this text: {error}") from error
        except BaseException as error:  # noqa: BLE001  # a panic in Rust derives from nothing narrower
            raise_for_panic(error, encoding=self.encoding)

    def encode_batch(self, texts: Sequence[str]) -> RaggedIds:
        """Return the ids of each text, one after the other: the library's own batches need threads.

        Raises:
            InvalidInput: As for `encode`, for one of them.
        """
        return RaggedIds.of([self.encode(text) for text in texts])

    def decode(self, ids: TokenIds) -> str:
        """Return the text of ids, as the normalizer left it.

        Raises:
            ExactnessError: An id is unknown or a control token, or the ids cut a character.
        """
        try:
            return b"".join([self._bytes_by_id[number] for number in ids.tolist()]).decode()
        except (KeyError, UnicodeDecodeError) as error:
            raise ExactnessError(f"ids are no text of {self.encoding}: {error}") from error

    def control_id(self, name: str) -> int:
        """Return the id of an added token.

        Raises:
            InvalidInput: The file has none of that name.
        """
        try:
            return self.identity.special_tokens[name]
        except KeyError:
            raise InvalidInput(f"{self.encoding} has no control token {name!r}", item=name) from None

    @cached_property
    def _bytes_by_id(self) -> dict[int, bytes]:
        """Bytes of every token that text can become; built when first needed, most processes never decode."""
        spelled = ((number, spelled_bytes(token)) for token, number in self._backend.get_vocab().items())
        return {number: found for number, found in spelled if found is not None}

    def _require_spelled(self, text: str) -> None:
        """Refuse what the library would leave out without a word."""
        missing = self._missing_bytes
        for form in (text, self._normalized(text)):
            for place, character in enumerate(form) if _holds(form, missing) else ():
                if _holds(character, missing):
                    raise InvalidInput(
                        f"{self.encoding} has no token for U+{ord(character):04X} (character {place} of a passage or "
                        "question) and would lose it"
                    )

    def _normalized(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))


def load_hf(content: bytes, *, name: str) -> HfTokenizer:
    """Build a tokenizer from the content of a `tokenizer.json`; takes 0.2 to 1 s.

    Args:
        content: The file's bytes.
        name: What specs call it; lower-case letters, digits and `_.-`, and no packaged encoding's name.

    Raises:
        TooLarge: The content is over the limit.
        InvalidInput: The name is none, or the file cannot be used exactly.
    """
    check_name(name)
    return HfTokenizer(parse_tokenizer_json(content), name=name)


def require_same_as_file(tokenizer: HfTokenizer, content: bytes, *, texts: Sequence[str]) -> None:
    """Compare with the file as the library loads it: ids of added tokens, and of texts without any.

    Args:
        tokenizer: Built of the file.
        content: The file's bytes.
        texts: Those that hold an added token, or that the tokenizer refuses, are left out.

    Raises:
        ExactnessError: The library numbers an added token otherwise than the file says, as engines would, too. Or it
            gives a text other ids: an added token acts on ordinary text.
    """
    whole = _built(whole_file_json(content))
    names = tokenizer.identity.special_tokens
    for name, number in names.items():
        if (given := whole.token_to_id(name)) != number:
            raise ExactnessError(
                f"the file of {tokenizer.encoding} gives added token {name!r} the id {number}, but it is loaded as "
                f"{given}"
            )
    for text in texts:
        if any(name in text for name in names):
            continue
        try:
            found = tokenizer.encode(text).tolist()
        except InvalidInput:
            continue
        expected = whole.encode(text, add_special_tokens=False).ids
        if found != expected:
            raise ExactnessError(
                f"without its added tokens {tokenizer.encoding} gives {text!r} the ids {found}, with them {expected}"
            )


def check_name(name: str) -> str:
    """Return a name for a tokenizer if it is one.

    Raises:
        InvalidInput: It is malformed or taken by a packaged encoding.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInput(f"tokenizer name {name[:80]!r} is not like 'smollm2' or 'qwen3-8b'", item="name")
    if name in known_encodings():
        raise InvalidInput(f"tokenizer name {name!r} is that of a packaged encoding", item="name")
    return name


def _built(data: bytes) -> Backend:
    try:
        backend: Backend = Backend.from_str(data.decode())
    except Exception as error:  # the library raises nothing narrower
        raise InvalidInput(f"this tokenizer.json cannot be loaded: {error}", item="tokenizer_json") from error
    except BaseException as error:  # noqa: BLE001  # a panic in Rust derives from nothing narrower
        raise_for_panic(error, encoding="this tokenizer.json")
    return backend


def _holds(text: str, wanted: bytes) -> bool:
    data = text.encode()
    return len(data.translate(None, wanted)) != len(data)
