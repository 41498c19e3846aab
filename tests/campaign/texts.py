"""Texts of which every passage says whose it is: of its document and generation, or of its document alone.

One passage of a document stays as it is from generation to generation, so that entries and points which a change leaves
alone are met as well. Sizes are chosen so that the default splitter gives every paragraph a passage of its own.
"""

import random
from functools import cache

_PARAGRAPH_CHARS = 1_300
"""More than half of a passage's most, so that no two paragraphs share one."""

_MOST_PARAGRAPHS = 3
_WORDS = (
    "harbour",
    "lantern",
    "orchard",
    "violin",
    "glacier",
    "thunder",
    "compass",
    "meadow",
    "granite",
    "whistle",
    "copper",
    "feather",
    "saddle",
    "pepper",
    "marble",
    "anchor",
    "cinnamon",
    "beacon",
    "willow",
    "ember",
    "quarry",
    "pigeon",
    "saffron",
    "tunnel",
    "velvet",
    "walnut",
)
_ODDITIES = ("<|endoftext|>", "<think>", "日本語の文", "naïve façade", "🙂🙃", "a\u00a0b", "x = [1, 2]  # ok", "\t·\t")
"""Control tokens' names, other scripts, white space that is no space: what a tokenizer may get wrong."""


def document_text(name: str, generation: int) -> str:
    """Return the text of one generation of a document, always the same one."""
    draw = random.Random(f"{name}/{generation}")
    changing = [
        _paragraph(f"{name} in generation {generation}", draw) for _ in range(draw.randint(1, _MOST_PARAGRAPHS))
    ]
    return "\n\n".join([_lasting(name), *changing])


def question(name: str, draw: random.Random) -> str:
    """Return a question that a document's passages answer best."""
    return f"What does {name} say about the {draw.choice(_WORDS)} and the {draw.choice(_WORDS)}?"


@cache
def _lasting(name: str) -> str:
    return _paragraph(f"{name} at all times", random.Random(name))


def _paragraph(subject: str, draw: random.Random) -> str:
    sentences: list[str] = []
    size = 0
    while size < _PARAGRAPH_CHARS:
        words = " ".join(draw.choice(_WORDS) for _ in range(draw.randint(4, 9)))
        odd = f" {draw.choice(_ODDITIES)}" if draw.random() < 0.2 else ""
        sentences.append(f"In {subject} the {words}{odd}.")
        size += len(sentences[-1]) + 1
    return " ".join(sentences)
