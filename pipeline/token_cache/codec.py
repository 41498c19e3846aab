"""An entry as bytes: packed ids that prove for which key they were written.

    offset  size      field
    0       2         magic `FF`
    2       1         version, 1
    3       1         codec of the payload: 1 = uint32, little endian
    4       1         flags: 1 = right edge is safe, 2 = tag is an HMAC; other bits zero
    5       3         zero
    8       4         number of ids, little endian
    12      4 a id    payload
    end     16 or 32  tag over key and all of the above: BLAKE2b-128, or HMAC-SHA-256 where a secret is set

Whatever is not exactly that, byte for byte and under its own key, is corrupt: reading never raises anything else and
never allocates by what a header claims.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

import numpy as np

from pipeline.errors import CorruptEntry, InvalidInput
from pipeline.framing.segments import TokenIds

MAX_IDS = 1 << 16
"""Most ids of one entry: a passage holds at most 8 KiB, this leaves room for tokenizers that expand text."""

_HEADER = struct.Struct("<4sB3sI")
_VERSION = 1
_KIND = b"FF" + bytes([_VERSION, 1])  # magic, version, codec
_RIGHT_SAFE = 1
_AUTHENTICATED = 2
_PADDING = b"\0\0\0"
_CHECKSUM_BYTES = 16
_HMAC_BYTES = 32
_UINT32 = np.dtype(np.uint32)
_PACKED = np.dtype("<u4")


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


def encode_entry(key: str, entry: Entry, *, hmac_key: bytes | None = None) -> bytes:
    """Return the value to store under `key`.

    Args:
        key: The Redis key, bound into the tag: a value moved to another key is corrupt there.
        entry: What to store.
        hmac_key: Secret of the deployment; None or empty: a plain checksum.
    """
    flags = (_RIGHT_SAFE if entry.right_safe else 0) | (_AUTHENTICATED if hmac_key else 0)
    header = _HEADER.pack(_KIND, flags, _PADDING, entry.ids.size)
    body = header + entry.ids.astype(_PACKED, copy=False).tobytes()
    return body + _tag(key, body, hmac_key)


def decode_entry(key: str, value: bytes, *, hmac_key: bytes | None = None) -> Entry:
    """Return the entry that `value` holds; its ids are a read-only view into `value`, nothing is copied.

    Args:
        key: The Redis key the value was read under.
        value: What Redis returned.
        hmac_key: Secret of the deployment. With one, values without HMAC are corrupt, and the reverse.

    Raises:
        CorruptEntry: Anything but an entry written for this key under this secret.
    """
    tag_bytes = _HMAC_BYTES if hmac_key else _CHECKSUM_BYTES
    payload_bytes = len(value) - _HEADER.size - tag_bytes
    if payload_bytes <= 0:
        raise CorruptEntry(f"{key}: {len(value)} bytes are too few for an entry")
    kind, flags, padding, count = _HEADER.unpack_from(value)
    if kind != _KIND or padding != _PADDING:
        raise CorruptEntry(f"{key}: not an entry of version {_VERSION}")
    if flags & ~_RIGHT_SAFE != (_AUTHENTICATED if hmac_key else 0):
        raise CorruptEntry(f"{key}: flags {flags:#04x} are not what this deployment writes")
    if payload_bytes != count * _PACKED.itemsize or count > MAX_IDS:
        raise CorruptEntry(f"{key}: {payload_bytes} bytes cannot be {count} ids")
    if not hmac.compare_digest(_tag(key, value[:-tag_bytes], hmac_key), value[-tag_bytes:]):
        raise CorruptEntry(f"{key}: the tag does not belong to these bytes under this key")
    packed = np.frombuffer(value, _PACKED, count, _HEADER.size)
    ids = packed if packed.dtype.isnative else packed.astype(_UINT32)
    return Entry(ids, bool(flags & _RIGHT_SAFE))


def _tag(key: str, body: bytes, hmac_key: bytes | None) -> bytes:
    name = key.encode()
    message = len(name).to_bytes(4, "little") + name + body
    if hmac_key:
        return hmac.digest(hmac_key, message, "sha256")
    return hashlib.blake2b(message, digest_size=_CHECKSUM_BYTES).digest()
