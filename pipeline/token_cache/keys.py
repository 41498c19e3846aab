"""Names of everything Forefill keeps in Redis; nothing else in the repository builds such a name.

    ff:{fingerprint}:{passage key}   string   one entry (see `codec`); fingerprint and passage key are 32 hex digits
    ff:epoch                         string   random mark, also in SQL: missing or different means flushed or replaced;
                                              behind it a check of the key that signs entries (see `marks`)
    ff:probe                         string   set for a second to see whether writes are taken; in the broker, too

A key says which tokens (spec) of which text (passage), and neither document nor version: entries are immutable.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

EPOCH_KEY = "ff:epoch"
"""Key of the cache's epoch."""

PROBE_KEY = "ff:probe"
"""Key that a check of writes sets for a second, in cache and broker."""

ENTRY_PATTERN = "ff:*:*"
"""Glob that every entry key matches; `parse_entry_key` decides."""

_PASSAGE_KEY_BYTES = 16
_GRAMMAR = re.compile(rb"ff:([0-9a-f]{32}):([0-9a-f]{32})")


class EntryName(NamedTuple):
    """What an entry is the entry of."""

    fingerprint: str
    """Fingerprint of the token spec, 32 lower-case hex digits."""
    passage_key: bytes
    """Hash of the passage's text, 16 bytes."""


def entry_key(fingerprint: str, passage_key: bytes) -> str:
    """Return the Redis key of one passage's entry under one spec.

    Raises:
        ValueError: The passage key is not 16 bytes long: its text form, for instance.
    """
    if len(passage_key) != _PASSAGE_KEY_BYTES:
        raise ValueError(f"a passage key has {_PASSAGE_KEY_BYTES} bytes, not {len(passage_key)}")
    return f"ff:{fingerprint}:{passage_key.hex()}"


def entry_keys(fingerprint: str, passage_keys: Iterable[bytes]) -> list[str]:
    """Do `entry_key` for many passages of one spec."""
    prefix = f"ff:{fingerprint}:"
    keys = [prefix + key.hex() for key in passage_keys]
    if not {*map(len, keys)} <= {len(prefix) + 2 * _PASSAGE_KEY_BYTES}:
        raise ValueError(f"a passage key has {_PASSAGE_KEY_BYTES} bytes")
    return keys


def parse_entry_key(key: bytes) -> EntryName | None:
    """Return what a Redis key is the entry of, or None for keys that are not entries."""
    match = _GRAMMAR.fullmatch(key)
    return EntryName(match[1].decode(), bytes.fromhex(match[2].decode())) if match else None
