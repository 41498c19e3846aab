"""Texts that tokenizers trip over, generated: what a spec is validated with.

Deterministic by seed under one version of Python's Unicode tables.
"""

import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources
from random import Random

import orjson

from pipeline.framing import Frame

MAX_TEXT_BYTES = 8 * 1024
"""No generated text is longer in UTF-8: the limit of a passage and of a query."""


class HostileTexts:
    """A stream of passages and questions made to break seams."""

    def __init__(
        self, rng: Random, *, frame: Frame, special_tokens: Sequence[str] = (), corpus_texts: Sequence[str] = ()
    ) -> None:
        """Args are the source of randomness, what to imitate, and real passages to mix in."""
        known = _fragments()
        self._rng = rng
        self._frame = frame
        self._control_texts = (*special_tokens, *known["control"])
        self._corpus_texts = corpus_texts
        self._makers: tuple[Callable[[], str], ...] = (
            lambda: rng.choice(known["edges"]),
            lambda: rng.choice(known["blanks"]),
            lambda: rng.choice(known["words"]),
            lambda: rng.choice(known["scripts"]),
            lambda: rng.choice(known["emoji"]),
            lambda: "".join(rng.choices(known["white_space"], k=rng.randint(1, 4))),
            lambda: "".join(rng.choices(known["invisible"], k=rng.randint(1, 3))),
            lambda: rng.choice(known["composed"]),
            lambda: rng.choice(known["words"]) + "".join(rng.choices(known["marks"], k=rng.randint(1, 5))),
            lambda: "".join(rng.choices("0123456789", k=rng.randint(1, 40))),
            lambda: "".join(rng.choices(known["digits"], k=rng.randint(1, 9))),
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
            return "".join(self._rng.choices(_fragments()["white_space"], k=self._rng.randint(1, 5)))
        return _bounded(self._mixture())

    def _mixture(self) -> str:
        parts = [self._rng.choice(self._makers)() for _ in range(self._rng.choice((1, 1, 2, 2, 3, 4, 6, 10)))]
        for place in (0, len(parts)):  # seams are at the ends
            if self._rng.random() < 0.3:
                parts.insert(place, self._rng.choice(_fragments()["edges"]))
        return "".join(parts)

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
        number = self._rng.randint(1, 12)
        return self._rng.choice((frame.header_text(number), frame.separator, frame.question_prefix, frame.header[:8]))

    def _repetition(self) -> str:
        unit = self._rng.choice(_fragments()["repeated"])
        most = 4096 if self._rng.random() < 0.02 else 40
        return unit * self._rng.randint(2, most)


@cache
def _fragments() -> dict[str, list[str]]:
    """Return what to build texts of, by kind."""
    fragments: dict[str, list[str]] = orjson.loads(resources.files(__package__).joinpath("fragments.json").read_bytes())
    return fragments


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
