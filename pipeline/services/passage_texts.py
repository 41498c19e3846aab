"""Texts of found passages, believed only if they hash to the key under which they were found."""

from collections.abc import Mapping, Sequence

from pipeline.context import WholePassage
from pipeline.documents.passages import passage_key
from pipeline.retrieval.vector_index import Hit, VectorSearcher
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


async def fetch_texts(searcher: VectorSearcher, collection: str, points: Mapping[bytes, str]) -> dict[bytes, str]:
    """Return the texts of passages by key; without those whose point is gone or holds another text by now.

    Args:
        searcher: Where points are.
        collection: The corpus' collection.
        points: Passage key to point id.

    Raises:
        Unavailable: The index did not answer.
    """
    texts = await searcher.texts(collection, list(points.values()))
    found = {key: texts[point] for key, point in points.items() if point in texts}
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


def points_of(hits: Sequence[Hit]) -> dict[bytes, str]:
    """Return the point of each found passage by its key."""
    return {bytes.fromhex(hit.passage_key): hit.point_id for hit in hits}


def _is_text_of(key: bytes, text: str) -> bool:
    if passage_key(text) == key:
        return True
    metrics.HASH_MISMATCHES.inc()
    _log.warning("retrieve.text_moved", passage_key=key.hex())
    return False
