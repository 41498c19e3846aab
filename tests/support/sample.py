"""The sample corpus: 659 documents and 168 questions."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "samples" / "python_docs"
DOCUMENTS = FOLDER / "docs.jsonl"


@cache
def documents() -> list[dict[str, Any]]:
    """The documents: `id`, `text`, perhaps `metadata`."""
    return [json.loads(line) for line in DOCUMENTS.read_text(encoding="utf-8").splitlines()]


@cache
def questions() -> list[dict[str, Any]]:
    """The questions: `text` and the ids of `relevant` documents."""
    return [json.loads(line) for line in (FOLDER / "queries.jsonl").read_text(encoding="utf-8").splitlines()]


def multiplied(times: int) -> list[dict[str, Any]]:
    """The documents several times over, with other ids and texts of their own."""
    return [
        {"id": f"{copy}/{document['id']}", "text": f"Copy {copy}. {document['text']}"}
        for copy in range(times)
        for document in documents()
    ]
