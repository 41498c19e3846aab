"""How a document's text is cut into passages: by the library's sense of paragraphs, sentences and words.

The cuts belong to the corpus, not to a token spec, and must stay the same for the same identity: changing one moves
points and empties the cache. The library looks ahead, over the rest of a text for line breaks and over the rest of a
line for words, which is quadratic: a million Chinese characters without a break took 69 s, four million lines of one
character 38 s. A cut needs no more than the next few thousand characters, so it is shown only those.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Self

from semantic_text_splitter import TextSplitter

from pipeline.documents.passages import MAX_PASSAGE_BYTES, Passage, passages_of
from pipeline.errors import InvalidInput

DEFAULT_SIZE_CHARS = 2_000
"""Characters of a passage at most: 8,000 bytes in UTF-8 whatever they are."""

MIN_SIZE_CHARS = 100
MAX_SIZE_CHARS = MAX_PASSAGE_BYTES // 4
"""Largest size whose passages cannot exceed `MAX_PASSAGE_BYTES`: a character has at most four bytes."""

_LIBRARY = "semantic-text-splitter"
_ALGORITHM = 1
_WINDOW_PASSAGES = 4
"""Text is handed over in windows of this many full passages."""

_IDENTITY = re.compile(rf"{_LIBRARY}/[^/]+/chars-(\d+)/v\d+")


@dataclass(frozen=True)
class Splitter:
    """Cuts texts into passages, deterministically.

    Frozen without slots, because the library's object is made once and kept.
    """

    size_chars: int = DEFAULT_SIZE_CHARS
    """Characters a passage has at most."""

    def __post_init__(self) -> None:
        if not MIN_SIZE_CHARS <= self.size_chars <= MAX_SIZE_CHARS:
            raise InvalidInput(
                f"a splitter's size must be {MIN_SIZE_CHARS} to {MAX_SIZE_CHARS} characters, not {self.size_chars}",
                item="splitter",
            )

    @classmethod
    def from_identity(cls, identity: str) -> Self:
        """Return the splitter a corpus was made with, in the versions installed now.

        Compare its `identity` with the one given to learn whether cuts may have moved.

        Raises:
            InvalidInput: This is no splitter's identity.
        """
        match = _IDENTITY.fullmatch(identity)
        if match is None:
            raise InvalidInput(f"unknown splitter {identity!a}; the default is {cls().identity}", item="splitter")
        return cls(int(match[1]))

    @cached_property
    def identity(self) -> str:
        """All that decides the cuts: library, its version, size and measure, and the version of this module's part."""
        return f"{_LIBRARY}/{version(_LIBRARY)}/chars-{self.size_chars}/v{_ALGORITHM}"

    def split(self, text: str) -> list[Passage]:
        """Cut a text into passages in reading order.

        Time grows linearly with the text: about 20 ms a million characters of prose, 1 to 2 s of unbroken Chinese.

        Args:
            text: Canonical text of a document.

        Returns:
            Passages of at most `size_chars` characters; none for a text of white space.

        Raises:
            InvalidInput: The text holds a lone surrogate.
        """
        try:
            return passages_of(text, spans=self._spans(text))
        except UnicodeEncodeError as error:
            raise InvalidInput(f"text holds a lone surrogate at character {error.start}") from error

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield spans that together are the text, from one window after the other.

        A window's last span was cut by the window, not by the text, so the next window begins with it.
        """
        begin, window_chars = 0, _WINDOW_PASSAGES * self.size_chars
        while begin < len(text):
            end = min(begin + window_chars, len(text))
            chunks = self._library.chunk_indices(text[begin:end])
            if end < len(text):
                chunks.pop()
            for offset, chunk in chunks:
                yield begin + offset, begin + offset + len(chunk)
            offset, chunk = chunks[-1]
            begin += offset + len(chunk)

    @cached_property
    def _library(self) -> TextSplitter:
        return TextSplitter(self.size_chars, trim=False)
