"""The packed form of what is served: passages in order, and lists of point ids."""

import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

_RECORD = struct.Struct("<16sII")
_POINT_BYTES = 16
RECORD_BYTES = _RECORD.size
"""Bytes of one packed passage; its key comes first."""


class PassageSpan(NamedTuple):
    """Where one passage stands in its document."""

    key: bytes
    """Passage key, 16 bytes."""
    start: int
    """First character."""
    end: int
    """One past the last character."""


def pack_spans(spans: Iterable[PassageSpan]) -> bytes:
    """Pack spans into 24 bytes each."""
    return b"".join([_RECORD.pack(*span) for span in spans])


def unpack_spans(packed: bytes) -> list[PassageSpan]:
    """Read what `pack_spans` wrote."""
    return list(map(PassageSpan._make, _RECORD.iter_unpack(packed)))


def pack_points(point_ids: Sequence[str]) -> bytes:
    """Pack point ids (UUIDs as text) into 16 bytes each."""
    return b"".join(UUID(point_id).bytes for point_id in point_ids)


def unpack_points(packed: bytes) -> list[str]:
    """Read what `pack_points` wrote."""
    starts = range(0, len(packed), _POINT_BYTES)
    return [str(UUID(bytes=packed[start : start + _POINT_BYTES])) for start in starts]
