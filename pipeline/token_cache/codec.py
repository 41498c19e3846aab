"""An entry as bytes: packed ids that prove for which key they were written.

    offset  size      field
    0       2         magic `FF`
    2       1         version, 2
    3       1         codec of the payload (see `packing`)
    4       1         flags: 1 = right edge is safe, 2 = tag is an HMAC; other bits zero
    5       1         number of the dictionary (see `dictionary`), 0 = one that learned nothing
    6       2         number of ids less one, little endian
    8                 payload
    end     8 or 16   tag over key and all of the above: XXH3-64, or with a secret the first half of HMAC-SHA-256

Version 1 stays readable, and is written for ids that no dictionary has a word for: codec 1, bytes 5 to 7 zero, the
number of ids in four bytes, from offset 12 the ids as uint32, little endian, then BLAKE2b-128 or the whole HMAC.

A checksum needs no more than 64 bits, and need not be cryptographic: it guards against damage and mix-ups, of which one
in 2^64 passes. No checksum guards against somebody who can write to the cache, because anybody can compute it; that is
what the secret is for, and its tag keeps 128 bits.

Whatever is not exactly that, byte for byte and under its own key, is corrupt: reading never raises anything else and
never allocates more than eight bytes for each id that the header claims, `MAX_IDS` at most, also when the tag is right.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hmac import compare_digest
from operator import itemgetter
from typing import Any, NamedTuple, NoReturn, Self, TypeAlias

import numpy as np
from xxhash import xxh3_64_digest

from pipeline.errors import CorruptEntry, InvalidInput
from pipeline.framing.ragged import RaggedIds
from pipeline.framing.segments import TokenIds
from pipeline.token_cache.dictionary import Dictionary, dictionary_numbered, no_dictionary
from pipeline.token_cache.packing import pack, uint32_bytes, uint32_ids, unpack

MAX_IDS = 1 << 16
"""Most ids of one entry: a passage holds at most 8 KiB, this leaves room for tokenizers that expand text."""

_KIND = b"FF\2"  # magic, version
_HEADER = struct.Struct("<3sBBBH")
_HEADER_BYTES = _HEADER.size
_CHECKSUM_BYTES = 8
_HMAC_BYTES = 16
_KIND_1 = b"FF\1"  # magic, version
_HEADER_1 = struct.Struct("<3sBB3sI")
_CHECKSUM_BYTES_1 = 16
_HMAC_BYTES_1 = 32
_RIGHT_SAFE = 1
_AUTHENTICATED = 2
_CODEC_1 = 1  # uint32
_UINT32 = np.dtype(np.uint32)
ID_BYTES = 4
_FOREIGN_FLAGS = "the flags are not what this deployment writes"
_FOREIGN_TAG = "the tag does not belong to these bytes under this key"

_Opened: TypeAlias = tuple[tuple[int, int], int, int, bool, bytes]
"""Codec and dictionary, position among what is decoded, number of ids, whether the edge is safe, payload."""


class _EntryColumns(NamedTuple):
    packed: bytes
    right_safe: bool


class Entry(_EntryColumns):
    """The ids of one passage with its separator under one spec. Immutable, and owns its memory.

    A pair of bytes and a flag, because lookups spend most of their time on making and joining these.
    """

    __slots__ = ()

    def __new__(cls, ids: TokenIds, right_safe: bool) -> Self:  # noqa: FBT001  # a field
        """Copy the ids.

        Args:
            ids: Token ids, uint32.
            right_safe: Whether they are the same whatever the frame puts after the separator.

        Raises:
            InvalidInput: Not one dimension of uint32, no ids at all, or more than `MAX_IDS`.
        """
        if ids.dtype != _UINT32 or ids.ndim != 1 or not 0 < ids.size <= MAX_IDS:
            raise InvalidInput(f"an entry needs 1 to {MAX_IDS} uint32 ids, not shape {ids.shape} of {ids.dtype}")
        return tuple.__new__(cls, (ids.tobytes(), right_safe))

    @property
    def ids(self) -> TokenIds:
        """Token ids, read-only."""
        return np.frombuffer(self.packed, _UINT32)

    @property
    def token_count(self) -> int:
        """Number of ids, the separator's included."""
        return len(self.packed) // ID_BYTES


_packed_of: Callable[[Any], bytes] = itemgetter(0)
_entry_of = partial(tuple.__new__, Entry)
"""Makes an entry of a pair of packed ids and flag that need no check."""


def joined_entries(entries: Iterable[Entry | None]) -> TokenIds:
    """Return the ids of entries end to end, read-only, without making an array of each.

    Raises:
        TypeError: One is None.
    """
    return np.frombuffer(b"".join(map(_packed_of, entries)), _UINT32)


def encode_entry(
    key: str, entry: Entry, *, hmac_key: bytes | None = None, dictionary: Dictionary | None = None
) -> bytes:
    """Return the value to store under `key`.

    Args:
        key: The Redis key, bound into the tag: a value moved to another key is corrupt there.
        entry: What to store.
        hmac_key: Secret of the deployment; None or empty: a plain checksum.
        dictionary: Of the ids' encoding; any other, or None, costs bytes and nothing else.
    """
    (value,) = encode_entries(
        [key], RaggedIds.of([entry.ids]), [entry.right_safe], hmac_key=hmac_key, dictionary=dictionary
    )
    return value


def encode_entries(
    keys: Sequence[str],
    ids: RaggedIds,
    right_safe: Sequence[bool],
    *,
    hmac_key: bytes | None = None,
    dictionary: Dictionary | None = None,
) -> list[bytes]:
    """Do `encode_entry` for many entries, in half the time of one by one.

    Args:
        keys: n Redis keys.
        ids: Token ids of n passages, each 1 to `MAX_IDS`.
        right_safe: Of n passages.
        hmac_key: Secret of the deployment; None or empty: plain checksums.
        dictionary: Of the ids' encoding; any other, or None, costs bytes and nothing else.
    """
    if not keys:
        return []
    dictionary = dictionary or no_dictionary("")
    try:
        packed = pack(ids, dictionary=dictionary)
    except IndexError:
        if len(keys) == 1:
            return [_encode_version_1(keys[0], ids[0], hmac_key, right_safe=right_safe[0])]
        alone = zip(keys, ids, right_safe, strict=True)
        return [
            encode_entry(key, Entry(one, safe), hmac_key=hmac_key, dictionary=dictionary) for key, one, safe in alone
        ]
    flags = (_flags(hmac_key, right_safe=False), _flags(hmac_key, right_safe=True))
    tag_bytes = _HMAC_BYTES if hmac_key else _CHECKSUM_BYTES
    values = []
    for key, (codec, payload), safe, count in zip(keys, packed, right_safe, ids.sizes.tolist(), strict=True):
        body = _HEADER.pack(_KIND, codec, flags[safe], dictionary.number, count - 1) + payload
        values.append(body + _tag(key, body, hmac_key, tag_bytes))
    return values


def _flags(hmac_key: bytes | None, *, right_safe: bool) -> int:
    return (_RIGHT_SAFE if right_safe else 0) | (_AUTHENTICATED if hmac_key else 0)


def _encode_version_1(key: str, ids: TokenIds, hmac_key: bytes | None, *, right_safe: bool) -> bytes:
    flags = _flags(hmac_key, right_safe=right_safe)
    body = _HEADER_1.pack(_KIND_1, _CODEC_1, flags, b"", ids.size) + uint32_bytes(ids)
    return body + _tag(key, body, hmac_key, _HMAC_BYTES_1 if hmac_key else _CHECKSUM_BYTES_1)


def decode_entry(key: str, value: bytes, *, hmac_key: bytes | None = None) -> Entry:
    """Return the entry that `value` holds; the value itself says with which dictionary it was packed.

    Args:
        key: The Redis key the value was read under.
        value: What Redis returned.
        hmac_key: Secret of the deployment. With one, values without HMAC are corrupt, and the reverse.

    Raises:
        CorruptEntry: Anything but an entry written for this key under this secret.
    """
    (found,) = decode_entries([key], [value], hmac_key=hmac_key)
    if not isinstance(found, Entry):
        raise found or CorruptEntry(key)
    return found


def decode_entries(
    keys: Sequence[str], values: Sequence[bytes | None], *, hmac_key: bytes | None = None
) -> list[Entry | CorruptEntry | None]:
    """Do `decode_entry` for every value that is not None, in half the time of one by one; errors are returned."""
    found: list[Entry | CorruptEntry | None] = [None] * len(values)
    opened: list[_Opened] = []
    for index, value in enumerate(values):
        if value is None:
            continue
        try:
            if value[:3] == _KIND_1:
                found[index] = _decode_version_1(keys[index], value, hmac_key)
            else:
                opened.append(_open(index, keys[index], value, hmac_key))
        except CorruptEntry as error:
            found[index] = error
    kinds = {one[0] for one in opened}
    for kind in kinds:
        group = opened if len(kinds) == 1 else [one for one in opened if one[0] == kind]
        for index, entry in _entries(keys, kind, group):
            found[index] = entry
    return found


def _open(index: int, key: str, value: bytes, hmac_key: bytes | None) -> _Opened:
    """Check a value of version 2, all but its payload."""
    end = len(value) - (_HMAC_BYTES if hmac_key else _CHECKSUM_BYTES)
    if end <= _HEADER_BYTES:
        _refuse(key, f"{len(value)} bytes are too few for an entry")
    kind, codec, flags, number, last = _HEADER.unpack_from(value)
    if kind != _KIND:
        _refuse(key, "not an entry of version 1 or 2")
    if flags & ~_RIGHT_SAFE != (_AUTHENTICATED if hmac_key else 0):
        _refuse(key, _FOREIGN_FLAGS)
    if not compare_digest(_tag(key, value[:end], hmac_key, len(value) - end), value[end:]):
        _refuse(key, _FOREIGN_TAG)
    return (codec, number), index, last + 1, flags & _RIGHT_SAFE == _RIGHT_SAFE, value[_HEADER_BYTES:end]


def _entries(
    keys: Sequence[str], kind: tuple[int, int], group: Sequence[_Opened]
) -> Iterable[tuple[int, Entry | CorruptEntry]]:
    """Return the entries of opened values of one kind; one with a wrong payload spoils no other."""
    _, indexes, counts, right_safe, payloads = zip(*group, strict=True)
    codec, number = kind
    try:
        packed = unpack(codec, payloads, counts=counts, dictionary=_dictionary(number))
    except (ValueError, IndexError) as error:
        if len(group) == 1:
            return [(indexes[0], CorruptEntry(f"{keys[indexes[0]]}: {error}"))]
        return [pair for one in group for pair in _entries(keys, kind, [one])]
    return zip(indexes, map(_entry_of, zip(packed, right_safe, strict=True)), strict=True)


def _dictionary(number: int) -> Dictionary:
    dictionary = dictionary_numbered(number)
    if dictionary is None:
        raise ValueError(f"packed with dictionary {number}, which this version does not have")
    return dictionary


def _decode_version_1(key: str, value: bytes, hmac_key: bytes | None) -> Entry:
    end = len(value) - (_HMAC_BYTES_1 if hmac_key else _CHECKSUM_BYTES_1)
    if end <= _HEADER_1.size:
        _refuse(key, f"{len(value)} bytes are too few for an entry")
    _, codec, flags, padding, count = _HEADER_1.unpack_from(value)
    if codec != _CODEC_1 or padding != b"\0\0\0" or not 0 < count <= MAX_IDS:
        _refuse(key, "not an entry of version 1")
    if flags & ~_RIGHT_SAFE != (_AUTHENTICATED if hmac_key else 0):
        _refuse(key, _FOREIGN_FLAGS)
    if not compare_digest(_tag(key, value[:end], hmac_key, len(value) - end), value[end:]):
        _refuse(key, _FOREIGN_TAG)
    try:
        ids = uint32_ids(value[_HEADER_1.size : end], count=count)
    except ValueError as error:
        raise CorruptEntry(f"{key}: {error}") from error
    return Entry(ids, bool(flags & _RIGHT_SAFE))


def _tag(key: str, body: bytes, hmac_key: bytes | None, size: int) -> bytes:
    name = key.encode()
    message = len(name).to_bytes(4, "little") + name + body
    if hmac_key:
        return hmac.digest(hmac_key, message, "sha256")[:size]
    if size == _CHECKSUM_BYTES:
        return xxh3_64_digest(message)
    return hashlib.blake2b(message, digest_size=size).digest()


def _refuse(key: str, reason: str) -> NoReturn:
    raise CorruptEntry(f"{key}: {reason}")
