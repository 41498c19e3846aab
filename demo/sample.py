"""The sample corpus as the repository holds it, and changed editions of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CORPUS = "python-docs"

DOCUMENTS_SHOWN = "samples/python_docs/docs.jsonl"
"""As a user types it in the checkout."""

_ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = _ROOT / DOCUMENTS_SHOWN
_QUESTIONS = _ROOT / "samples/python_docs/queries.jsonl"
_ASKED = 12


@dataclass(frozen=True, slots=True)
class Question:
    """One question of the sample."""

    text: str
    relevant: frozenset[str]
    """Ids of the documents that answer it."""


def load_texts() -> dict[str, str]:
    """Return the text of every document by its id."""
    return {line["id"]: line["text"] for line in _lines(DOCUMENTS)}


def load_questions() -> list[Question]:
    """Return a dozen questions, spread evenly over the sample."""
    every = [Question(line["text"], frozenset(line["relevant"])) for line in _lines(_QUESTIONS)]
    return every[:: len(every) // _ASKED][:_ASKED]


def edition(texts: Mapping[str, str], title: str) -> dict[str, str]:
    """Return documents that all differ from those given, and from other editions of them."""
    return {name: f"{title}.\n\n{text}" for name, text in texts.items()}


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
