"""Ids in as few bytes as decoding them in microseconds allows.

    codec  payload
    2      words as UTF-16, little endian
    3      the same, compressed by zstd

An id's *word* is its number in a dictionary's order (see `dictionary`), which leaves out UTF-16's surrogates. UTF-16 is
the cheapest packing there is: two bytes for the first 63,488 words, four for the rest, written, read and checked by the
interpreter's own C code in a microsecond. zstd makes less of it than of uint32, 24-bit words or byte planes
(`python -m benchmarks.packings` prints by how much). The shorter of both codecs is used.
"""

from codecs import utf_16_le_decode, utf_16_le_encode, utf_32_le_decode
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import numpy as np

from pipeline.framing.ragged import RaggedIds
from pipeline.framing.segments import TokenIds
from pipeline.token_cache.dictionary import Dictionary

WORDS: Final = 2
ZSTD: Final = 3

_MAX_WORD_BYTES = 4
_UINT32 = np.dtype(np.uint32)


def pack(ids: RaggedIds, *, dictionary: Dictionary) -> list[tuple[int, bytes]]:
    """Return codec and payload of each text.

    Raises:
        IndexError: There are ids that have no word.
    """
    trimmed = ids.trimmed()
    # Not by name: `str.encode` looks these up in Python, each time.
    words = utf_32_le_decode(dictionary.words.take(trimmed.ids).tobytes())[0]
    places = zip(trimmed.starts.tolist(), trimmed.stops.tolist(), strict=True)
    raws = [utf_16_le_encode(words[start:stop])[0] for start, stop in places]
    both = [(dictionary.zstd.compress(raw), raw) for raw in raws]
    return [(ZSTD, blocks) if len(blocks) < len(raw) else (WORDS, raw) for blocks, raw in both]


def unpack(codec: int, payloads: Sequence[bytes], *, counts: Sequence[int], dictionary: Dictionary) -> list[bytes]:
    """Return the ids of payloads of one codec and dictionary: the bytes of each one's uint32 array.

    Each step is taken for all of them before the next one, which is faster by a tenth than all steps for each. No
    allocation exceeds twice the words' bytes, which are four a word at most.

    Raises:
        ValueError: One of them is not the payload of so many words.
        IndexError: There are words that the dictionary has not.
    """
    most_bytes = [count * _MAX_WORD_BYTES for count in counts]
    if codec == ZSTD:
        payloads = dictionary.zstd.decompress(payloads, most_bytes)
    elif codec != WORDS or any(len(one) > most for one, most in zip(payloads, most_bytes, strict=True)):
        raise ValueError(f"there is no codec {codec}, or there are more bytes than so many ids can have")
    words = [utf_16_le_decode(payload, "strict", True)[0] for payload in payloads]  # noqa: FBT003  # that is all of it
    if list(map(len, words)) != list(counts):
        raise ValueError("there is another number of ids than the header says")
    ids = dictionary.ids.take(np.array(["".join(words)]).view(_UINT32)).tobytes()
    return [ids[start:end] for start, end in pairwise(accumulate(most_bytes, initial=0))]


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
