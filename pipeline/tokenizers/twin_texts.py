"""Texts on which a fast twin must agree with its reference before it is used: short, nasty, always the same.

Where libraries differ is Unicode: which characters are letters, numbers, marks or white space to one version. So the
first and last character of every stretch of one category stand in the texts, in several surroundings. Before `'ll` it
shows in the ids whether a character is a letter or a number. Characters that this Python does not know are left out, as
no twin encodes them.
"""

import random
import unicodedata
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise

from pipeline.tokenizers.golden_ids import golden_texts
from pipeline.tokenizers.unicode_versions import is_assigned

_SEED = 20
_MIXED = 700
_BOUNDARIES_PER_TEXT = 24
_SURROUNDINGS = ("{}'ll ", "a{}B", " {}A", "1{}{}\n")
_ASSIGNED = (range(0xD800), range(0xE000, 0x32400), range(0xE0000, 0xE0200), range(0xFFFFE, 0x100002))
"""Code points outside of which Unicode has, or may have, nothing but surrogates, private use and gaps."""
_FRAGMENTS = (
    *("the", " The", "ABC", "aBC", "don't", "WE'LL", "'S", "'\u017f", "x1", "_", " a", "naïve", "Straße"),
    *("1", "12", "1234", "12345678", "٣٤٥", "½", "²", "Ⅷ", "\uff13"),
    *(" ", "  ", "\t", "\n", "\r\n", "\n\n", "\r", "\x0b", "\x0c", "\x1c", "\x85", "\u00a0", "\u2028", "\u3000"),
    *("\u200b", "\u200d", "\ufeff", "\u00ad", "\u0301", "e\u0301", "\u0344", "\u0345", "\u0e33", "\u1100\u1161\u11a8"),
    *(".", "...", "!?", "/", "//", "'", '"', "--", "===", "…", "«", "\\", "\x00", "\x7f", "<|endoftext|>", "<think>"),
    *("日本語", "한글", "ไทย", "हिन्दी", "עברית", "العربية", "\ufb01", "\u212b", "ǅ", "İ", "K", "👩‍👩‍👧", "🇩🇪", "👍🏽"),
)
_RUNS = ("a", "A", "1", " ", "\n", "\r\n", "=", "é", "\u0301", "漢", "'s", " \n", "ab", "-=", "👍")
_RUN_LENGTHS = (2, 3, 7, 8, 15, 16, 31, 33, 64, 255, 1000)


@cache
def twin_texts() -> tuple[str, ...]:
    """Return about 1,900 texts, 220 kB of UTF-8."""
    return tuple(dict.fromkeys((*_golden(), *_boundaries(), *_runs(), *_mixtures())))


def _golden() -> Iterator[str]:
    texts = golden_texts()
    yield from texts
    yield from (left + right for left, right in pairwise(texts))


def _boundaries() -> Iterator[str]:
    characters = _category_boundaries()
    for start in range(0, len(characters), _BOUNDARIES_PER_TEXT):
        several = characters[start : start + _BOUNDARIES_PER_TEXT]
        for surroundings in _SURROUNDINGS:
            yield "".join(surroundings.replace("{}", character) for character in several)


def _category_boundaries() -> Sequence[str]:
    """Return the first and last character of every stretch of one category."""
    found: list[str] = []
    for points in _ASSIGNED:
        before, last = "", ""
        for character in map(chr, points):
            if (category := unicodedata.category(character)) != before:
                found += [last, character] if last else [character]
            before, last = category, character
        found.append(last)
    return [character for character in dict.fromkeys(found) if is_assigned(character)]


def _runs() -> Iterator[str]:
    for unit in _RUNS:
        for length in _RUN_LENGTHS:
            yield unit * length
            yield f"x{unit * length}y"


def _mixtures() -> Iterator[str]:
    generator = random.Random(_SEED)
    for _ in range(_MIXED):
        yield "".join(generator.choices(_FRAGMENTS, k=generator.randint(2, 12)))
