"""GPT-2's way of writing bytes as printable characters, in which byte-level vocabularies are spelled."""

from collections.abc import Iterable
from functools import cache

_PRINTABLE = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
"""Bytes that stand for themselves; the others are written as characters from U+0100 on."""

_NEVER_IN_UTF8 = frozenset((0xC0, 0xC1, *range(0xF5, 0x100)))


@cache
def byte_of_character() -> dict[str, int]:
    """Return which byte each of the 256 characters stands for."""
    others = [byte for byte in range(0x100) if byte not in set(_PRINTABLE)]
    spelled = {chr(byte): byte for byte in _PRINTABLE}
    return spelled | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def spelled_bytes(token: str) -> bytes | None:
    """Return the bytes that a token spells, or None if it is not spelled so."""
    known = byte_of_character()
    try:
        return bytes([known[character] for character in token])
    except KeyError:
        return None


def missing_bytes(tokens: Iterable[str]) -> bytes:
    """Return the bytes of UTF-8 that no token alone spells: text with them would silently lose them."""
    single = set(tokens)
    lacking = {byte for character, byte in byte_of_character().items() if character not in single}
    return bytes(sorted(lacking - _NEVER_IN_UTF8))
