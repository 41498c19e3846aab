"""Questions that people might ask of a corpus, drawn as people do: a few of them again and again."""

import random
import re
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

from benchmarks.corpus import Document
from benchmarks.harness import SEED

T = TypeVar("T")

_WORD = re.compile(r"[^\W\d_]{3,}")
_WORDS = (5, 12)
_EXPONENT = 1.0


def questions_from(documents: Sequence[Document], count: int) -> list[str]:
    """Return questions made of a few words in a row out of documents, spread over them; the same for the same seed."""
    draw = random.Random(SEED)
    asked: list[str] = []
    for document in draw.choices(documents, k=count):
        words = _WORD.findall(document.text[:4000]) or [document.id]
        length = draw.randint(*_WORDS)
        start = draw.randrange(max(1, len(words) - length))
        asked.append(" ".join(words[start : start + length]))
    return asked


def zipf_stream(items: Sequence[T], *, exponent: float = _EXPONENT, seed: int = SEED) -> Iterator[T]:
    """Yield items without end: the one at place n with a weight of 1 / n to the exponent."""
    weights = list(accumulate((place + 1) ** -exponent for place in range(len(items))))
    draw = random.Random(seed)
    while True:
        yield draw.choices(items, cum_weights=weights)[0]
