"""tiktoken as a `Tokenizer`: the reference for OpenAI's encodings.

The encoding is built from our own pinned definition, not looked up by name, so that neither the network nor a newer
tiktoken's idea of the pattern can change ids unnoticed. Long unbroken runs need no splitting of our own: a megabyte of
one letter takes 0.4 s (a passage of 8 KiB at most 1.2 ms); what its regular expression engine gives up on is refused.
"""

from collections.abc import Sequence
from importlib import metadata

import tiktoken

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import RaggedIds, TokenIds
from pipeline.tokenizers.refusals import raise_for_panic, require_utf8
from pipeline.tokenizers.tokenizer import TokenizerIdentity
from pipeline.tokenizers.vocabulary import VocabularyDefinition, load_ranks, vocabulary_definition


class TiktokenTokenizer:
    """One tiktoken encoding."""

    source = "tiktoken"

    def __init__(self, definition: VocabularyDefinition, *, ranks: dict[bytes, int]) -> None:
        self.encoding = definition.encoding
        self.library = f"tiktoken {metadata.version('tiktoken')}"
        self.vocabulary_size = definition.vocabulary_size
        self.special_ids = frozenset(definition.special_tokens.values())
        self.identity = TokenizerIdentity(
            vocabulary_sha256=definition.sha256, pattern=definition.pattern, special_tokens=definition.special_tokens
        )
        self._special_tokens = definition.special_tokens
        self._bpe = tiktoken.Encoding(
            definition.encoding,
            pat_str=definition.pattern,
            mergeable_ranks=ranks,
            special_tokens=definition.special_tokens,
        )

    def __repr__(self) -> str:
        return f"<TiktokenTokenizer {self.encoding} ({self.library})>"

    @property
    def reference(self) -> "TiktokenTokenizer":
        """Return itself: nothing decides over it."""
        return self

    def canonical(self, text: str) -> bytes:
        """Return the UTF-8 that is split and merged.

        Raises:
            InvalidInput: The text holds lone surrogates.
        """
        return require_utf8(text)

    def encode(self, text: str) -> TokenIds:
        """Return the ids of ordinary text.

        tiktoken calls encoding with nothing allowed and nothing disallowed equivalent to `encode_ordinary`; it is the
        only way to ids without a Python list.

        Raises:
            InvalidInput: The text holds lone surrogates, or tiktoken gives up on it.
        """
        require_utf8(text)  # tiktoken would silently encode a replacement character
        try:
            return self._bpe.encode_to_numpy(text, disallowed_special=())
        except ValueError as error:
            raise InvalidInput(f"{self.encoding} cannot encode this text: {error}") from error
        except BaseException as error:  # noqa: BLE001  # a panic in Rust derives from nothing narrower
            raise_for_panic(error, encoding=self.encoding)

    def encode_batch(self, texts: Sequence[str]) -> RaggedIds:
        """Return the ids of each text, one after the other: the library's own batches need threads and make lists.

        Raises:
            InvalidInput: As for `encode`, for one of them.
        """
        return RaggedIds.of([self.encode(text) for text in texts])

    def decode(self, ids: TokenIds) -> str:
        """Return the text of ids.

        Raises:
            ExactnessError: An id is unknown, or the ids cut a character.
        """
        try:
            return self._bpe.decode(ids.tolist(), errors="strict")
        except (KeyError, ValueError, OverflowError) as error:
            raise ExactnessError(f"ids are no text of {self.encoding}: {error}") from error
        except BaseException as error:  # noqa: BLE001  # a panic in Rust derives from nothing narrower
            raise_for_panic(error, encoding=self.encoding)

    def control_id(self, name: str) -> int:
        """Return the id of a special token.

        Raises:
            InvalidInput: The encoding has none of that name.
        """
        try:
            return self._special_tokens[name]
        except KeyError:
            raise InvalidInput(f"{self.encoding} has no control token {name!r}", item=name) from None


def load_tiktoken(encoding: str) -> TiktokenTokenizer:
    """Build a packaged encoding; takes 0.15 to 0.3 s.

    Raises:
        InvalidInput: The encoding is not known.
        ConfigurationError: Its vocabulary is missing or has other bytes than the pinned ones.
    """
    definition = vocabulary_definition(encoding)
    return TiktokenTokenizer(definition, ranks=load_ranks(definition))
