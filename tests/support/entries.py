"""Builders of token-cache values."""

import hashlib
from collections.abc import Sequence

import numpy as np

from pipeline.token_cache import Entry

FINGERPRINT = "0123456789abcdef" * 2
OTHER_FINGERPRINT = "fedcba9876543210" * 2


def passage_key_of(name: str) -> bytes:
    """Return a passage key, 16 bytes, that is the same for the same name."""
    return hashlib.sha256(name.encode()).digest()[:16]


def entry_of(*ids: int, right_safe: bool = True) -> Entry:
    """Return an entry with these ids."""
    return Entry(np.array(ids, dtype=np.uint32), right_safe=right_safe)


def numbered_pairs(count: int, *, tokens: int = 8) -> list[tuple[bytes, Entry]]:
    """Return so many different entries of so many ids each, with their passage keys."""
    return [(passage_key_of(f"passage {n}"), entry_of(*range(n, n + tokens))) for n in range(count)]


def keys_of(pairs: Sequence[tuple[bytes, Entry]]) -> list[bytes]:
    """Return the passage keys of pairs."""
    return [key for key, _ in pairs]
