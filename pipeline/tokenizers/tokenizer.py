"""What every tokenizer offers, and what of it decides ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.framing import RaggedIds, TextEncoder, TokenIds


@dataclass(frozen=True, slots=True)
class TokenizerIdentity:
    """All that decides the ids of a text, apart from the library that computes them. Hashed into the fingerprint."""

    vocabulary_sha256: str
    """SHA-256 of the vocabulary's bytes (rank file, or model and merges of a `tokenizer.json`), hex."""
    pattern: str
    """What splits text before merging: a regular expression, or the pre-tokenizer as canonical JSON."""
    special_tokens: Mapping[str, int]
    """Control tokens by name; never produced from text."""
    normalizer: str = ""
    """The normalizer as canonical JSON; empty where there is none."""
    options: str = "{}"
    """Further options that change ids, canonical JSON."""


class Tokenizer(TextEncoder, Protocol):
    """Text to ids and back. Thread-safe, deterministic, and never special."""

    @property
    def reference(self) -> "Tokenizer":
        """Return the tokenizer that decides where a faster one computes: itself unless this one is a twin."""
        ...

    @property
    def encoding(self) -> str:
        """Return the vocabulary's name, for instance `o200k_base`."""
        ...

    @property
    def source(self) -> str:
        """Return where its definition comes from: `tiktoken` or `hf`."""
        ...

    @property
    def library(self) -> str:
        """Return library and version that compute the ids; recorded with a spec, not hashed."""
        ...

    @property
    def identity(self) -> TokenizerIdentity:
        """Return what decides the ids."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """Return the number that every id is below."""
        ...

    @property
    def special_ids(self) -> frozenset[int]:
        """Return the ids that only a frame may write."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> RaggedIds:
        """Return the ids of each text, as `encode` gives them, in less time where there is a way.

        Raises:
            InvalidInput: One of the texts is none, or cannot be taken; which one is not said.
        """
        ...

    def decode(self, ids: TokenIds) -> str:
        """Return the text of ids.

        Raises:
            ExactnessError: The ids are no text: one is unknown, or they cut a character.
        """
        ...
