"""Texts of found passages, believed only if they hash to the key under which they were found."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from pipeline.context import WholePassage
from pipeline.documents.passages import passage_key
from pipeline.retrieval.vector_index import Hit
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


class TextSource(Protocol):
    """What says the text of a point."""

    async def texts(self, name: str, point_ids: Sequence[str]) -> dict[str, str]:
        """Return the texts of living points; absent and buried ones are left out."""
        ...


async def fetch_texts(source: TextSource, collection: str, hits: Mapping[bytes, Hit]) -> dict[bytes, str]:
    """Return the texts of passages by key; without those whose point is gone or holds another text by now.

    Args:
        source: Where points are; asked for what the search did not bring along.
        collection: The corpus' collection.
        hits: Passages by their key.

    Raises:
        Unavailable: The index did not answer.
    """
    found = {key: hit.text for key, hit in hits.items() if hit.text is not None}
    if unread := {key: hit.point_id for key, hit in hits.items() if hit.text is None}:
        texts = await source.texts(collection, list(unread.values()))
        found |= {key: texts[point] for key, point in unread.items() if point in texts}
    return {key: text for key, text in found.items() if _is_text_of(key, text)}


def whole_passages(hits: Sequence[Hit], texts: Mapping[bytes, str]) -> list[WholePassage]:
    """Return the hits whose text is there, with it, in their order."""
    keyed = [(bytes.fromhex(hit.passage_key), hit) for hit in hits]
    return [
        WholePassage(
            passage_key=key,
            text=texts[key],
            document_id=hit.document_id,
            ordinal=hit.ordinal,
            generation=hit.generation,
            score=hit.score,
        )
        for key, hit in keyed
        if key in texts
    ]


def by_key(hits: Sequence[Hit]) -> dict[bytes, Hit]:
    """Return each found passage by its key."""
    return {bytes.fromhex(hit.passage_key): hit for hit in hits}


def _is_text_of(key: bytes, text: str) -> bool:
    if passage_key(text) == key:
        return True
    metrics.HASH_MISMATCHES.inc()
    _log.warning("retrieve.text_moved", passage_key=key.hex())
    return False
