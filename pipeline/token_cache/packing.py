"""Ids in as few bytes as decoding them in microseconds allows.

    codec  payload
    2      words as UTF-16, little endian
    3      the same, compressed by zstd

An id's *word* is its number in a dictionary's order (see `dictionary`), which leaves out UTF-16's surrogates. UTF-16 is
the cheapest packing there is: two bytes for the first 63,488 words, four for the rest, written, read and checked by the
interpreter's own C code in a microsecond. zstd makes less of it than of uint32, 24-bit words or byte planes
(`python -m benchmarks.packings` prints by how much). The shorter of both codecs is used.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Final

import numpy as np

from pipeline.framing.ragged import RaggedIds
from pipeline.framing.segments import TokenIds
from pipeline.token_cache.dictionary import NO_WORD, Dictionary

WORDS: Final = 2
ZSTD: Final = 3

_MAX_WORD_BYTES = 4
_LAST_OF_TWO_BYTES = 0xFFFF
_UINT32 = np.dtype(np.uint32)
_BETWEEN = chr(NO_WORD).encode("utf-16-le")


def pack(ids: TokenIds, *, dictionary: Dictionary) -> tuple[int, bytes]:
    """Return the codec and the payload.

    Raises:
        IndexError: There are ids that have no word.
    """
    raw = dictionary.words.take(ids).tobytes().decode("utf-32-le").encode("utf-16-le")
    blocks = dictionary.zstd.compress(raw)
    return (ZSTD, blocks) if len(blocks) < len(raw) else (WORDS, raw)


def pack_all(ids: RaggedIds, *, dictionary: Dictionary) -> Iterator[tuple[int, bytes]]:
    """Yield codec and payload of each text, as `pack` returns them, in less than half the time.

    Raises:
        IndexError: There are ids that have no word.
    """
    trimmed = ids.trimmed()
    words = dictionary.words.take(trimmed.ids)
    raw = words.tobytes().decode("utf-32-le").encode("utf-16-le")
    (pairs,) = np.nonzero(words > _LAST_OF_TWO_BYTES)  # before a position stand two bytes a word, and two more for each
    starts, stops = (2 * (at + np.searchsorted(pairs, at)) for at in (trimmed.starts, trimmed.stops))
    compress = dictionary.zstd.compress
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        piece = raw[start:stop]
        blocks = compress(piece)
        yield (ZSTD, blocks) if len(blocks) < len(piece) else (WORDS, piece)


def unpack(
    codecs: Sequence[int], payloads: Sequence[bytes], *, counts: Sequence[int], dictionary: Dictionary
) -> list[TokenIds]:
    """Return the ids of payloads of one dictionary, unpacked in one go: read-only arrays that keep no other memory.

    No allocation exceeds twice the words' bytes, which are four a word at most.

    Raises:
        ValueError: One of them is not the payload of so many words.
        IndexError: There are words that the dictionary has not.
    """
    decompress = dictionary.zstd.decompress
    raws = [
        decompress(payload, count * _MAX_WORD_BYTES) if codec == ZSTD else _raw_words(codec, payload, count=count)
        for codec, payload, count in zip(codecs, payloads, counts, strict=True)
    ]
    words = np.frombuffer(_BETWEEN.join(raws).decode("utf-16-le").encode("utf-32-le"), "<u4")
    # If separators are where the counts say, and nowhere else, then every payload has its number of words.
    starts = list(accumulate((count + 1 for count in counts), initial=0))
    between = np.flatnonzero(words == NO_WORD)
    if words.size != starts[-1] - 1 or between.tolist() != [start - 1 for start in starts[1:-1]]:
        raise ValueError("there is another number of ids than the header says")
    ids = dictionary.ids.take(words).tobytes()
    # Arrays over bytes are read-only, which takes half the time of copying arrays and freezing each.
    return [
        np.frombuffer(ids[4 * start : 4 * (start + count)], _UINT32)
        for start, count in zip(starts, counts, strict=False)
    ]


def _raw_words(codec: int, payload: bytes, *, count: int) -> bytes:
    if codec != WORDS or len(payload) > count * _MAX_WORD_BYTES:
        raise ValueError(f"{len(payload)} bytes cannot be {count} ids of codec {codec}")
    return payload


def uint32_bytes(ids: TokenIds) -> bytes:
    """Return ids packed as uint32, little endian."""
    return ids.astype("<u4", copy=False).tobytes()


def uint32_ids(payload: bytes, *, count: int) -> TokenIds:
    """Return ids packed as uint32: a read-only view, nothing is copied.

    Raises:
        ValueError: Another number of ids.
    """
    if len(payload) != 4 * count:
        raise ValueError(f"{len(payload)} bytes cannot be {count} ids")
    packed = np.frombuffer(payload, "<u4", count)
    return packed if packed.dtype.isnative else packed.astype(np.uint32)
