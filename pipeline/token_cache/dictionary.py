"""Dictionaries for packing: what text in an encoding's ids looks like, learned once and shipped.

A dictionary is two things. The *words* renumber ids so that those frequent in text come first, which is what lets two
bytes hold nearly every id and their upper byte compress well; the zstd dictionary then knows common sequences of them.
Neither can change ids, only sizes: an encoding without a dictionary of its own, or ids of another encoding, pack
less tightly and come back the same.

A file is `FREQUENT_IDS` ids as uint32, most frequent first, then the zstd dictionary; `benchmarks/train_dictionary.py`
makes it. Entries name a dictionary by number, so a number means the same bytes for ever.
"""

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
import numpy.typing as npt
import zstandard

from pipeline.errors import ConfigurationError
from pipeline.framing.segments import TokenIds

FOLDER = Path(str(resources.files("pipeline.token_cache") / "dictionaries"))
"""Where the files are."""

FREQUENT_IDS = 4096
"""Ids that get a new number. All ids by frequency make English 2 % smaller and other languages 5 to 15 % larger."""

TABLE_IDS = 9 << 15
"""Ids that have a word: those of any vocabulary so far, 262,144 and a few special ones being the largest."""

SURROGATES = range(0xD800, 0xE000)
"""Words that UTF-16 cannot write: they are left out of the numbering."""

NO_WORD = TABLE_IDS + len(SURROGATES)
"""What follows the last word."""

LEVEL = 2
"""2.5 µs for 450 ids. Level 1 saves no time and packs 1 % larger; 3 takes 5 µs to gain 0.2 %, 7 15 µs to gain 2 %."""

_TYPICAL_BYTES = 1000
"""Of an entry's words: zstd tunes itself to it; left to guess it packs 1 to 2 % larger at most levels."""

_WINDOW_LOG = 18  # 256 KiB: the largest entry's four bytes an id
_FRAME_START = bytes([0, _WINDOW_LOG - 10 << 3])


@dataclass(frozen=True, slots=True)
class _Pinned:
    number: int
    sha256: str


_PINNED = {
    "o200k_base": _Pinned(1, "c017bc1840f5cabec08c704803ec9ab446b308e07d828ee9fd3afec1ba2fbac8"),
    "cl100k_base": _Pinned(2, "dc83d77b8036a145ea09320ad251006e0bcf859d14905a5168f062471149719d"),
}
_SAME_TEXT = {"o200k_harmony": "o200k_base"}
"""Encodings that differ from another in their special tokens only."""


class Zstd(threading.local):
    """zstd with one dictionary or none; each thread gets contexts of its own, made when it first comes here.

    Frames carry neither magic, size, checksum nor dictionary id: the entry around them says all of that. What is left
    of a frame's head says only how large its window is, so it is not stored either: a reader takes the largest, and
    no stored byte can ask it for more memory than it has decided to give.
    """

    def __init__(self, content: bytes | None = None) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL,
            source_size=_TYPICAL_BYTES,
            dict_size=len(content or b""),
            format=zstandard.FORMAT_ZSTD1_MAGICLESS,
            write_content_size=False,
            write_checksum=False,
            write_dict_id=False,
        )
        dictionary = None
        if content is not None:
            dictionary = zstandard.ZstdCompressionDict(content)
            dictionary.precompute_compress(compression_params=parameters)
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary)
        self._decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, dict_data=dictionary)

    def compress(self, content: bytes) -> bytes:
        """Return the content's blocks."""
        return self._compressor.compress(content)[len(_FRAME_START) :]

    def decompress(self, blocks: Iterable[bytes], max_bytes: Iterable[int]) -> list[bytes]:
        """Return the content of each; allocates its `max_bytes` at most.

        Raises:
            ValueError: One of them is not the blocks of one frame, or its content is larger.
        """
        decompress = self._decompressor.decompress
        try:
            # By position, which is a tenth faster: one frame, and nothing behind it.
            return [
                decompress(_FRAME_START + one, most, False, False)  # noqa: FBT003  # above
                for one, most in zip(blocks, max_bytes, strict=True)
            ]
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True, slots=True, eq=False)
class Dictionary:
    """One dictionary, ready to use by any thread."""

    number: int
    """What entries call it; 0 learned nothing: ids keep their order and zstd knows no sequences."""
    words: npt.NDArray[np.uint32]
    """Id to word, little endian."""
    zstd: Zstd
    """Compresses words."""
    ids: TokenIds = field(init=False)
    """Word to id."""

    def __post_init__(self) -> None:
        ids = np.zeros(NO_WORD, dtype=np.uint32)
        ids[self.words] = np.arange(TABLE_IDS, dtype=np.uint32)
        object.__setattr__(self, "ids", ids)


def ranked_words(frequent: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Return the word of every id below `TABLE_IDS`: the frequent ones in their order, then all others in theirs."""
    rest = np.ones(TABLE_IDS, dtype=bool)
    rest[frequent] = False
    ranks = np.empty(TABLE_IDS, dtype="<u4")
    ranks[np.concatenate([frequent, np.flatnonzero(rest)])] = np.arange(TABLE_IDS)
    ranks[ranks >= SURROGATES.start] += len(SURROGATES)
    return ranks


def dictionary_of(encoding: str) -> Dictionary:
    """Return the dictionary of an encoding, the one that learned nothing where there is none.

    Raises:
        ConfigurationError: Its file is missing or has other bytes than the pinned ones.
    """
    pinned = _PINNED.get(_SAME_TEXT.get(encoding, encoding))
    return _load(pinned.number if pinned else 0)


def dictionary_numbered(number: int) -> Dictionary | None:
    """Return the dictionary that entries call by this number, None where this version has none.

    Raises:
        ConfigurationError: Its file is missing or has other bytes than the pinned ones.
    """
    return _load(number) if number == 0 or number in _ENCODINGS else None


def no_dictionary(_fingerprint: str) -> Dictionary:
    """Return the dictionary that learned nothing: for callers that know no encoding."""
    return _load(0)


_ENCODINGS = {pinned.number: encoding for encoding, pinned in _PINNED.items()}


@cache
def _load(number: int) -> Dictionary:
    if number == 0:
        return Dictionary(0, ranked_words(np.zeros(0, dtype=np.uint32)), Zstd())
    encoding = _ENCODINGS[number]
    path = FOLDER / f"{encoding}.dict"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the packing dictionary of {encoding} cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != _PINNED[encoding].sha256:
        raise ConfigurationError(f"{path} is not the packing dictionary of {encoding} that this version was made with")
    frequent = np.frombuffer(content, "<u4", FREQUENT_IDS)
    return Dictionary(number, ranked_words(frequent), Zstd(content[frequent.nbytes :]))
