"""An entry as bytes: packed ids that prove for which key they were written.

    offset  size      field
    0       2         magic `FF`
    2       1         version, 2
    3       1         codec of the payload (see `packing`)
    4       1         flags: 1 = right edge is safe, 2 = tag is an HMAC; other bits zero
    5       1         number of the dictionary (see `dictionary`), 0 = none
    6       2         number of ids less one, little endian
    8                 payload
    end     8 or 16   tag over key and all of the above: BLAKE2b-64, or the first 16 bytes of HMAC-SHA-256 where a secret
                      is set

Version 1 stays readable: bytes 5 to 7 zero, the number of ids in four bytes, payload always codec 1 from offset 12, tag
BLAKE2b-128 or the whole HMAC. It is not written any more.

A checksum needs no more than 64 bits: it guards against damage and mix-ups, of which one in 2^64 passes, and no length
of it guards against somebody who can write to the cache, because anybody can compute it. That is what the secret is for,
and its tag keeps 128 bits.

Whatever is not exactly that, byte for byte and under its own key, is corrupt: reading never raises anything else and
never allocates more than eight bytes for each of `MAX_IDS` ids, also when the tag is right.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from pipeline.errors import CorruptEntry, InvalidInput
from pipeline.framing.segments import TokenIds
from pipeline.token_cache.dictionary import Dictionary, dictionary_numbered
from pipeline.token_cache.packing import UINT32, pack, uint32_ids, unpack

MAX_IDS = 1 << 16
"""Most ids of one entry: a passage holds at most 8 KiB, this leaves room for tokenizers that expand text."""

_MAGIC = b"FF"
_HEADER = struct.Struct("<2sBBBBH")
_VERSION = 2
_CHECKSUM_BYTES = 8
_HMAC_BYTES = 16
_HEADER_1 = struct.Struct("<2sBBB3sI")
_CHECKSUM_BYTES_1 = 16
_HMAC_BYTES_1 = 32
_RIGHT_SAFE = 1
_AUTHENTICATED = 2
_UINT32 = np.dtype(np.uint32)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The ids of one passage with its separator under one spec. Immutable: a writable array is copied.

    Raises:
        InvalidInput: Not one dimension of uint32, no ids at all, or more than `MAX_IDS`.
    """

    ids: TokenIds
    """Token ids, read-only."""
    right_safe: bool
    """Whether the ids are the same whatever the frame puts after the separator."""

    def __post_init__(self) -> None:
        ids = self.ids
        if ids.dtype != _UINT32 or ids.ndim != 1 or not 0 < ids.size <= MAX_IDS:
            raise InvalidInput(f"an entry needs 1 to {MAX_IDS} uint32 ids, not shape {ids.shape} of {ids.dtype}")
        if ids.flags.writeable:
            ids = ids.copy()
            ids.flags.writeable = False
            object.__setattr__(self, "ids", ids)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return self.right_safe == other.right_safe and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash((self.right_safe, self.ids.tobytes()))

    @property
    def token_count(self) -> int:
        """Number of ids, the separator's included."""
        return self.ids.size


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
    flags = (_RIGHT_SAFE if entry.right_safe else 0) | (_AUTHENTICATED if hmac_key else 0)
    codec, number, payload = pack(entry.ids, dictionary=dictionary)
    body = _HEADER.pack(_MAGIC, _VERSION, codec, flags, number, entry.ids.size - 1) + payload
    return body + _tag(key, body, hmac_key, size=_HMAC_BYTES if hmac_key else _CHECKSUM_BYTES)


def decode_entry(key: str, value: bytes, *, hmac_key: bytes | None = None) -> Entry:
    """Return the entry that `value` holds; the value itself says with which dictionary it was packed.

    Args:
        key: The Redis key the value was read under.
        value: What Redis returned.
        hmac_key: Secret of the deployment. With one, values without HMAC are corrupt, and the reverse.

    Raises:
        CorruptEntry: Anything but an entry written for this key under this secret.
    """
    if value[:3] == b"FF\1":
        return _decode_version_1(key, value, hmac_key)
    end = len(value) - (_HMAC_BYTES if hmac_key else _CHECKSUM_BYTES)
    if end <= _HEADER.size:
        _refuse(key, f"{len(value)} bytes are too few for an entry")
    magic, version, codec, flags, number, last = _HEADER.unpack_from(value)
    if magic != _MAGIC or version != _VERSION:
        _refuse(key, f"not an entry of version 1 or {_VERSION}")
    _check(key, value, end=end, flags=flags, hmac_key=hmac_key)
    dictionary = dictionary_numbered(number) if number else None
    if number and dictionary is None:
        _refuse(key, f"packed with dictionary {number}, which this version does not have")
    try:
        ids = unpack(codec, value[_HEADER.size : end], count=last + 1, dictionary=dictionary)
    except (ValueError, IndexError) as error:
        raise CorruptEntry(f"{key}: {error}") from error
    return Entry(ids, bool(flags & _RIGHT_SAFE))


def _decode_version_1(key: str, value: bytes, hmac_key: bytes | None) -> Entry:
    end = len(value) - (_HMAC_BYTES_1 if hmac_key else _CHECKSUM_BYTES_1)
    if end <= _HEADER_1.size:
        _refuse(key, f"{len(value)} bytes are too few for an entry")
    _, _, codec, flags, padding, count = _HEADER_1.unpack_from(value)
    if codec != UINT32 or padding != b"\0\0\0" or not 0 < count <= MAX_IDS:
        _refuse(key, "not an entry of version 1")
    _check(key, value, end=end, flags=flags, hmac_key=hmac_key)
    try:
        ids = uint32_ids(value[_HEADER_1.size : end], count=count)
    except ValueError as error:
        raise CorruptEntry(f"{key}: {error}") from error
    return Entry(ids, bool(flags & _RIGHT_SAFE))


def _check(key: str, value: bytes, *, end: int, flags: int, hmac_key: bytes | None) -> None:
    """Raise unless flags and tag are what this deployment writes; the tag begins at `end`."""
    if flags & ~_RIGHT_SAFE != (_AUTHENTICATED if hmac_key else 0):
        _refuse(key, f"flags {flags:#04x} are not what this deployment writes")
    if not hmac.compare_digest(_tag(key, value[:end], hmac_key, size=len(value) - end), value[end:]):
        _refuse(key, "the tag does not belong to these bytes under this key")


def _tag(key: str, body: bytes, hmac_key: bytes | None, *, size: int) -> bytes:
    name = key.encode()
    message = len(name).to_bytes(4, "little") + name + body
    if hmac_key:
        return hmac.digest(hmac_key, message, "sha256")[:size]
    return hashlib.blake2b(message, digest_size=size).digest()


def _refuse(key: str, reason: str) -> NoReturn:
    raise CorruptEntry(f"{key}: {reason}")
