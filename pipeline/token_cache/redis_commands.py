"""Commands and replies of the token cache's two sides, without a connection of their own."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from redis.client import NEVER_DECODE

from pipeline.bounded_redis import FAILURES, failed, within
from pipeline.errors import Unavailable
from pipeline.token_cache.batching import MAX_BATCH_ENTRIES
from pipeline.token_cache.codec import encode_entries
from pipeline.token_cache.dictionary import Dictionary
from pipeline.token_cache.entries import Entries
from pipeline.token_cache.keys import ENTRY_PATTERN, entry_keys, parse_entry_key
from pipeline.token_cache.stores import PassageEntry

_SCAN_COUNT = 1000
_VALUES = {bytes, type(None)}
_ENCODED_TOGETHER = 64
_MAX_ENTRY_BYTES = 128 * 1024
"""More than any entry has: a passage of 8 KiB has 8,192 ids at most."""


def execute_raw(client: Any, *command: str | int) -> Any:
    """Execute a command whose reply stays bytes, also on a caller's client with `decode_responses=True`.

    Returns the reply, or an awaitable of it from an asynchronous client (redis-py types neither).
    """
    return client.execute_command(*command, **{NEVER_DECODE: True})


def packed_mget(keys: Sequence[str]) -> bytes:
    """Return an MGET of entry keys, which are ASCII and of one length, as it is sent: in a third of hiredis' time."""
    before = f"\r\n${len(keys[0])}\r\n"
    return f"*{len(keys) + 1}\r\n$4\r\nMGET{before}{before.join(keys)}\r\n".encode("ascii")


def encode_pairs(
    fingerprint: str, pairs: Iterable[PassageEntry], hmac_key: bytes | None, dictionary: Dictionary
) -> Iterator[tuple[str, bytes]]:
    """Yield Redis keys and packed entries of passages."""
    for part in _parts(pairs):
        keys = entry_keys(fingerprint, part.passage_keys)
        safe = part.right_safe.tolist()
        yield from zip(
            keys, encode_entries(keys, part.ids, safe, hmac_key=hmac_key, dictionary=dictionary), strict=True
        )


def _parts(pairs: Iterable[PassageEntry]) -> Iterator[Entries]:
    if isinstance(pairs, Entries):
        yield from pairs.parts(MAX_BATCH_ENTRIES)
        return
    left = iter(pairs)
    while some := list(islice(left, _ENCODED_TOGETHER)):
        yield Entries.of(some)


def key_chunks(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield keys in numbers that one command may have."""
    for start in range(0, len(keys), MAX_BATCH_ENTRIES):
        yield keys[start : start + MAX_BATCH_ENTRIES]


def scan_options(fingerprint: str | None) -> tuple[str | int, ...]:
    """Return the options of a SCAN over the entries of one spec, or of all."""
    pattern = ENTRY_PATTERN if fingerprint is None else f"ff:{fingerprint}:*"
    return ("MATCH", pattern, "COUNT", _SCAN_COUNT)


def scan_page(reply: Any) -> tuple[int, list[bytes]]:
    """Cursor and keys of a SCAN reply.

    Raises:
        ValueError: It is none; as `checked_values`.
    """
    cursor, keys = reply
    if not isinstance(keys, list) or not all(isinstance(key, bytes) for key in keys):
        raise ValueError("a page of a scan holds no names")
    return int(cursor), keys


def checked_values(reply: Any, count: int) -> list[bytes | None]:
    """Return the reply of an MGET of so many keys.

    Raises:
        ValueError: It is another.
    """
    if not isinstance(reply, list) or len(reply) != count or not {type(value) for value in reply} <= _VALUES:
        raise ValueError("an MGET was answered with something else")
    return reply


def mget_bytes(keys: int) -> int:
    """Return how many bytes the entries of so many passages can have."""
    return 1024 + keys * _MAX_ENTRY_BYTES


def require_ok(reply: object) -> None:
    """Refuse any other reply than OK.

    Raises:
        ValueError: It is another.
    """
    if reply != b"OK":
        raise ValueError("an MSET was answered with something else")


def checked_counts(replies: Any, count: int) -> list[int]:
    """Return the replies of so many commands that count something.

    Raises:
        ValueError: They are others.
    """
    if not isinstance(replies, list) or len(replies) != count or not all(isinstance(each, int) for each in replies):
        raise ValueError("commands that count were answered with something else")
    return replies


def only_entry_keys(keys: Iterable[bytes]) -> list[bytes]:
    """Return those keys that are an entry's by their grammar."""
    return [key for key in keys if parse_entry_key(key)]


@contextmanager
def translated(total_s: float = math.inf) -> Iterator[None]:
    """Turn whatever the client raises into `Unavailable`.

    Args:
        total_s: Seconds for all replies to a synchronous client in the block.
    """
    try:
        with within(total_s):
            yield
    except FAILURES as error:
        raise unavailable(error) from error


def unavailable(error: BaseException) -> Unavailable:
    """Return what a client's failure means to callers."""
    return failed(error, service="cache", name="the token cache")
