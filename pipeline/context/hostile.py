"""Texts that tokenizers trip over, generated: what a spec is validated with.

Deterministic by seed under one version of Python's Unicode tables.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from random import Random

from pipeline.framing import Frame

_WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_BLANKS = (" ", "  ", "\n", "\n\n", "\r\n", "\r", " \n", "\n ", "\t", "\n\n\n", " \n \n", "\r\n\r\n")
_INVISIBLE = (
    "\u200b\u200c\u200d\u200e\u200f\u202a\u202c\u202d\u202e\u2060\u2066\u2067\u2069\ufeff\ufe0f\u00ad\u034f\u180e"
)
_WORDS = (
    "the",
    "Document",
    "Question: ",
    "Answer:",
    "HTTPServer",
    "iPhone",
    "naïve",
    "Straße",
    "ΣΊΣΥΦΟΣ",
    "ﬁne",
    "İstanbul",
)
_SCRIPTS = (
    "漢字",
    "ひらがな",
    "カタカナ",
    "한국어",
    "العربية",
    "עברית",
    "हिन्दी",
    "ภาษาไทย",
    "кириллица",
    "ελληνικά",
    "Tiếng Việt",
    "አማርኛ",
)
_EMOJI = ("👋🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "1️⃣", "☺️", "🫠")
_EDGES = (
    *(
        "/",
        "//",
        "\\",
        "'",
        '"',
        "’",
        "'s",
        "'S",
        "'ll",
        "'LL",
        "'ve",
        "'d",
        "’s",
        "s'",
        ".",
        "...",
        "?!",
        ":",
        ";",
        ",",
    ),
    *(
        "-",
        "--",
        "_",
        "(",
        ")",
        "[1]",
        "{",
        "}",
        "<",
        ">",
        "|",
        "<|",
        "|>",
        "</",
        "#",
        "@",
        "$",
        "%",
        "&",
        "=",
        "~",
        "`",
    ),
    *(
        "\u0301",
        "\u0301\u0301",
        "\u093f",
        "\u200d",
        "\u200b",
        "\ufeff",
        "\ufe0f",
        "\u202e",
        "\x00",
        "\x1b",
        "\x7f",
        "0",
    ),
    *(
        "12",
        "123",
        "1234",
        "٣",
        "３",
        "½",
        "²",
        "Ⅷ",
        "a",
        "D",
        "Q",
        "é",
        "e\u0301",
        "ß",
        "İ",
        "ǅ",
        "ʰ",
        "漢",
        "は",
        "ก",
        "א",
    ),
)
_STRUCTURAL = (
    "<think>",
    "</think>",
    "<tool_call>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "[INST]",
    "<s>",
    "</s>",
    "<pad>",
)
_REPEATED = (
    "a",
    "A",
    " ",
    "\n",
    "é",
    "漢",
    "\u0301",
    ".",
    "=",
    "/",
    "'",
    "9",
    "\u200d",
    "👍",
    "ab",
    " \n",
    "<|",
    "\u3000",
)

MAX_TEXT_BYTES = 8 * 1024
"""No generated text is longer in UTF-8: the limit of a passage and of a query."""


class HostileTexts:
    """A stream of passages and questions made to break seams."""

    def __init__(
        self, rng: Random, *, frame: Frame, special_tokens: Sequence[str] = (), corpus_texts: Sequence[str] = ()
    ) -> None:
        """Args are the source of randomness, what to imitate, and real passages to mix in."""
        self._rng = rng
        self._frame = frame
        self._control_texts = (*special_tokens, *_STRUCTURAL)
        self._corpus_texts = corpus_texts
        self._fragments: tuple[Callable[[], str], ...] = (
            lambda: rng.choice(_EDGES),
            lambda: rng.choice(_EDGES),
            lambda: rng.choice(_BLANKS),
            lambda: rng.choice(_WORDS),
            lambda: rng.choice(_SCRIPTS),
            lambda: rng.choice(_EMOJI),
            lambda: "".join(rng.choices(_WHITE_SPACE, k=rng.randint(1, 4))),
            lambda: "".join(rng.choices(_INVISIBLE, k=rng.randint(1, 3))),
            lambda: "".join(rng.choices("0123456789", k=rng.randint(1, 9))),
            self._any_category,
            self._any_category,
            self._control_text,
            self._frame_text,
            self._repetition,
        )

    def passage(self) -> str:
        """Return a passage: stripped, not empty, at most `MAX_TEXT_BYTES`."""
        while True:
            if self._corpus_texts and self._rng.random() < 0.4:
                text = self._rng.choice(self._corpus_texts)
            else:
                text = self._mixture()
            text = _bounded(text).strip()
            if text:
                return text

    def question(self) -> str:
        """Return a question: anything, the empty text and white space included."""
        choice = self._rng.random()
        if choice < 0.05:
            return ""
        if choice < 0.1:
            return "".join(self._rng.choices(_WHITE_SPACE, k=self._rng.randint(1, 5)))
        return _bounded(self._mixture())

    def _mixture(self) -> str:
        count = self._rng.choice((1, 1, 2, 2, 3, 4, 6, 10))
        return "".join(self._rng.choice(self._fragments)() for _ in range(count))

    def _any_category(self) -> str:
        members = self._rng.choice(_characters_by_category())
        return "".join(self._rng.choices(members, k=self._rng.randint(1, 3)))

    def _control_text(self) -> str:
        text = self._rng.choice(self._control_texts)
        match self._rng.randrange(4):
            case 0:
                return text[self._rng.randrange(len(text)) :]
            case 1:
                return text[: self._rng.randrange(1, len(text) + 1)]
            case 2:
                middle = self._rng.randrange(len(text))
                return text[:middle] + text + text[middle:]
            case _:
                return text

    def _frame_text(self) -> str:
        frame = self._frame
        return self._rng.choice(
            (
                frame.header_text(self._rng.randint(1, 12)),
                frame.separator,
                frame.question_prefix,
                frame.header_text(2)[:-1],
            )
        )

    def _repetition(self) -> str:
        unit = self._rng.choice(_REPEATED)
        most = 4096 if self._rng.random() < 0.02 else 40
        return unit * self._rng.randint(2, most)


@cache
def _characters_by_category() -> tuple[tuple[str, ...], ...]:
    """Return up to 64 characters, evenly spread, of each Unicode category but surrogates."""
    members: dict[str, list[str]] = {}
    for point in range(0x110000):
        character = chr(point)
        members.setdefault(unicodedata.category(character), []).append(character)
    members.pop("Cs")
    return tuple(tuple(found[:: max(1, len(found) // 64)]) for _, found in sorted(members.items()))


def _bounded(text: str) -> str:
    return text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
