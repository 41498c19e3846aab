"""Nasty texts without end, the same for one seed."""

import random
import sys
import unicodedata
from collections.abc import Iterator
from functools import cache

_ENDINGS = (
    "'s",
    "'S",
    "'ll",
    "'\u017f",
    "'T",
    "/",
    '"',
    ".",
    "...",
    "!?",
    "\\",
    "<|endoftext|>",
    "<|im_end|>",
    "<think>",
)
_SPACES = (
    " ",
    "  ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    "\x0b",
    "\x1c",
    "\x85",
    "\u00a0",
    "\u2028",
    "\u3000",
    "\u200b",
    "\u200d",
)
_WORDS = ("the", "The", " the", "ABC", "aBC", "don't", "I'M", "x1", "naïve", "Straße", "日本語", "한글", "ไทย", "हिन्दी")
_MARKS = (
    "\u0301",
    "e\u0301",
    "\u0344",
    "\u0345",
    "\u1100\u1161\u11a8",
    "\ufb01",
    "\u212b",
    "\u0958",
    "👩‍👩‍👧",
    "🇩🇪",
    "👍🏽",
)
_DIGITS = ("1", "12", "123", "1234", "12345678", "٣٤٥", "½", "²", "Ⅷ")
_KINDS = (_ENDINGS, _SPACES, _WORDS, _WORDS, _MARKS, _DIGITS)


@cache
def characters_by_category() -> tuple[str, ...]:
    """Return all characters but surrogates, those of one category in one string."""
    found: dict[str, list[str]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        if (category := unicodedata.category(character)) != "Cs":
            found.setdefault(category, []).append(character)
    return tuple("".join(characters) for characters in found.values())


def generated_texts(count: int, *, seed: int) -> Iterator[str]:
    """Yield as many texts of 1 to 12 fragments."""
    generator = random.Random(seed)
    categories = characters_by_category()
    for _ in range(count):
        yield "".join(_fragment(generator, categories) for _ in range(generator.randint(1, 12)))


def _fragment(generator: random.Random, categories: tuple[str, ...]) -> str:
    kind = generator.random()
    if kind < 0.3:
        return generator.choice(generator.choice(categories))
    if kind < 0.4:
        return chr(generator.randrange(32, 127))
    if kind < 0.45:
        return "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(2, 20)))
    fragment = generator.choice(generator.choice(_KINDS))
    return fragment if kind < 0.9 else fragment * generator.randint(2, 9)
