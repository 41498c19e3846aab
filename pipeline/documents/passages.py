"""Passages: the spans of a document that are embedded, tokenized, cached and found.

A passage is named by its content alone. Its key holds neither spec nor document, so the same text in two documents, or
in two generations of one, leads to the same cache entry.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.documents.content import framed

MAX_PASSAGE_BYTES = 8 * 1024
"""UTF-8 bytes no passage may exceed."""

PASSAGE_KEY_BYTES = 16
"""Length of a passage key."""

_KEY_DOMAIN = framed(b"passage-v1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One span of a document's canonical text, stripped of outer white space and never empty."""

    start: int
    """Character offset of its first character."""

    end: int
    """Character offset after its last character: `text == document_text[start:end]`."""

    text: str
    """The span itself, at most `MAX_PASSAGE_BYTES` in UTF-8."""

    key: bytes
    """`passage_key(text)`."""

    occurrence: int
    """How many earlier passages of the same document have the same text."""


def passage_key(text: str) -> bytes:
    """Name a passage by its content.

    Returns:
        The first 16 bytes of SHA-256 over the length-framed fields `passage-v1` and the text in UTF-8.
    """
    return hashlib.sha256(_KEY_DOMAIN + framed(text.encode())).digest()[:PASSAGE_KEY_BYTES]


def passages_of(text: str, *, spans: Iterable[tuple[int, int]]) -> list[Passage]:
    """Make passages of spans: strip outer white space, drop what is then empty, count repetitions.

    Args:
        text: The document's canonical text.
        spans: Character offsets (start, end) in reading order.
    """
    seen: Counter[bytes] = Counter()
    passages = []
    for start, end in spans:
        span = text[start:end]
        stripped = span.strip()
        if not stripped:
            continue
        first = start + len(span) - len(span.lstrip())
        key = passage_key(stripped)
        passages.append(Passage(start=first, end=first + len(stripped), text=stripped, key=key, occurrence=seen[key]))
        seen[key] += 1
    return passages
