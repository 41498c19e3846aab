"""Ids as few bytes as their decoding time allows.

    codec  payload
    1      uint32, little endian
    2      words as UTF-16, little endian
    3      the same, compressed by zstd

An id's *word* is its number in a dictionary's order (see `dictionary`), or without one the id itself; either numbering
leaves out UTF-16's surrogates. UTF-16 is the cheapest packing there is: two bytes for the first 63,488 words, four for
the rest up to a million, written and checked by the interpreter's own C code in a microsecond. zstd finds more in it
than in uint32, 24-bit or byte planes, which `python -m benchmarks.codec` prints.

Whichever of 2 and 3 is shorter is used; 1 is for ids that have no word.
"""

from typing import Final

import numpy as np

from pipeline.framing.segments import TokenIds
from pipeline.token_cache.dictionary import SURROGATES, Dictionary, plain_zstd

UINT32: Final = 1
WORDS: Final = 2
ZSTD: Final = 3

_LAST_PLAIN_ID = 0x10FFFF - len(SURROGATES)
_MAX_WORD_BYTES = 4


def pack(ids: TokenIds, *, dictionary: Dictionary | None) -> tuple[int, int, bytes]:
    """Return the codec, the number of the dictionary that was used (0: none) and the payload."""
    words, zstd, number = None, plain_zstd(), 0
    if dictionary is not None:
        try:
            words, zstd, number = dictionary.words.take(ids), dictionary.zstd, dictionary.number
        except IndexError:
            pass  # ids of a larger vocabulary
    if words is None:
        if int(ids.max()) > _LAST_PLAIN_ID:
            return UINT32, 0, ids.astype("<u4", copy=False).tobytes()
        words = np.where(ids >= SURROGATES.start, ids + len(SURROGATES), ids).astype("<u4", copy=False)
    raw = words.tobytes().decode("utf-32-le").encode("utf-16-le")
    blocks = zstd.compress(raw)
    return (ZSTD, number, blocks) if len(blocks) < len(raw) else (WORDS, number, raw)


def unpack(codec: int, payload: bytes, *, count: int, dictionary: Dictionary | None) -> TokenIds:
    """Return the `count` ids of a payload, read-only.

    No allocation exceeds eight bytes an id, whatever the payload says.

    Raises:
        ValueError: It is not the payload of so many ids.
        IndexError: It has words that the dictionary has not.
    """
    if codec == UINT32:
        return uint32_ids(payload, count=count)
    if codec == ZSTD:
        zstd = plain_zstd() if dictionary is None else dictionary.zstd
        payload = zstd.decompress(payload, max_bytes=count * _MAX_WORD_BYTES)
    elif codec != WORDS:
        raise ValueError(f"there is no codec {codec}")
    if len(payload) > count * _MAX_WORD_BYTES:
        raise ValueError(f"{len(payload)} bytes are too many for {count} ids")
    words = np.frombuffer(payload.decode("utf-16-le").encode("utf-32-le"), "<u4")
    if words.size != count:
        raise ValueError(f"there are {words.size} ids, not {count}")
    if dictionary is None:
        ids = np.where(words >= SURROGATES.stop, words - len(SURROGATES), words).astype(np.uint32, copy=False)
    else:
        ids = dictionary.ids.take(words)
    ids.flags.writeable = False
    return ids


def uint32_ids(payload: bytes, *, count: int) -> TokenIds:
    """Return ids packed as uint32: a read-only view, nothing is copied.

    Raises:
        ValueError: Another number of ids.
    """
    if len(payload) != 4 * count:
        raise ValueError(f"{len(payload)} bytes cannot be {count} ids")
    packed = np.frombuffer(payload, "<u4", count)
    return packed if packed.dtype.isnative else packed.astype(np.uint32)
