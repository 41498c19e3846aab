"""How a document's text is cut into passages: by the library's sense of paragraphs, sentences and words.

The cuts belong to the corpus, not to a token spec, and must stay the same for the same identity: changing one moves
points and empties the cache. The library looks ahead, over the rest of a text for line breaks and over the rest of a
line for words, which is quadratic: a million Chinese characters without a break took 69 s, four million lines of one
character 38 s. So long texts and long lines are cut into windows before it sees them.
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
_BLOCK_PASSAGES = 32
"""Text is handed over in blocks of this many full passages at most."""

_LINE_PASSAGES = 4
"""A line is handed over whole up to this many full passages."""

_LINE = re.compile(r"[^\r\n]+")
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

        Time grows linearly with the text: about 10 ms a million characters of prose, 1 s of unbroken Chinese.

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
        for begin, end in self._windows(text):
            for offset, chunk in self._library.chunk_indices(text[begin:end]):
                yield begin + offset, begin + offset + len(chunk)

    def _windows(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield spans that together are the text: at most a block each, with no line longer than `_LINE_PASSAGES`."""
        line_limit, begin = _LINE_PASSAGES * self.size_chars, 0
        while begin < len(text):
            block_end = _cut(text, start=begin, limit=_BLOCK_PASSAGES * self.size_chars, after=("\n\n", "\n", " "))
            for line in _LINE.finditer(text, begin, block_end):
                line_start = line.start()
                while line.end() - line_start > line_limit:
                    line_start = _cut(text, start=line_start, limit=line_limit, after=(" ",))
                    yield begin, line_start
                    begin = line_start
            yield begin, block_end
            begin = block_end

    @cached_property
    def _library(self) -> TextSplitter:
        return TextSplitter(self.size_chars, trim=False)


def _cut(text: str, *, start: int, limit: int, after: tuple[str, ...]) -> int:
    """Return where a window from `start` ends: after the first of the separators found in its last half."""
    if len(text) - start <= limit:
        return len(text)
    for separator in after:
        found = text.rfind(separator, start + limit // 2, start + limit)
        if found >= 0:
            return found + len(separator)
    return start + limit
