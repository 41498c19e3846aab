"""Telling texts on which libraries agree from those that depend on which version of Unicode each was built with.

What Unicode has assigned it leaves alone: libraries that know a character agree on whether it is a letter, how it
composes and how it is ordered. A character that this Python does not know may be a letter to one library and nothing to
another (in 2026 gigatoken knew Unicode 17, tiktoken and tokenizers 16, Pythons 14 to 16).
"""

import sys
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

_ASCII = bytes(range(128))
_HANGUL_SECONDS = (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3))
"""Vowels and finals, which compose with what stands before them by rule, not by table."""


def is_assigned(text: str) -> bool:
    """Tell whether this Python knows every character of a text.

    Args:
        text: Without lone surrogates.
    """
    return text.isascii() or bool(assigned_characters().take(_points(text)).all())


def is_assigned_utf8(data: bytes) -> bool:
    """Tell it of valid UTF-8, in a fraction of the time where most characters are ASCII."""
    others = data.translate(None, _ASCII)
    return not others or is_assigned(others.decode())


def is_composed(text: str) -> bool:
    """Tell whether NFC leaves a text alone for certain, under every version of Unicode; False says nothing.

    It does where each character is a known starter that neither decomposes nor is the second half of a composition: a
    library takes characters that it does not know as they are.

    Args:
        text: Without lone surrogates.
    """
    return text.isascii() or bool(inert_characters().take(_points(text)).all())


@cache
def assigned_characters() -> NDArray[np.bool_]:
    """Return by code point whether it is assigned or for private use; takes 0.1 s and a megabyte, when first needed."""
    return np.fromiter(
        (unicodedata.category(chr(point)) not in {"Cn", "Cs"} for point in range(sys.maxunicode + 1)), dtype=np.bool_
    )


@cache
def inert_characters() -> NDArray[np.bool_]:
    """Return by code point whether NFC can do nothing to it or with it."""
    inert = assigned_characters().copy()
    seconds = set(_HANGUL_SECONDS)
    for point in np.flatnonzero(inert).tolist():
        character = chr(point)
        decomposition = unicodedata.decomposition(character)
        if decomposition and not decomposition.startswith("<"):
            seconds.update(int(part, 16) for part in decomposition.split()[1:])
        inert[point] = not unicodedata.combining(character) and unicodedata.is_normalized("NFC", character)
    inert[list(seconds)] = False
    return inert


def _points(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
