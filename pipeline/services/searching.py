"""Finding passages that may stand together in one prompt: of each text one, of each document one generation.

What is dropped makes room for the next best: the search is repeated as if the copies and the outdated points that it
found were not there. That costs nothing where the first search finds enough, which is nearly always.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from pipeline.context import drop_duplicates, drop_older_generations
from pipeline.errors import Unavailable
from pipeline.retrieval.embedding import Embedding
from pipeline.retrieval.vector_index import NOTHING, Hit, LeftOut, VectorSearcher

MOST_FETCHED: Final = 500
"""Hits of one repeated search at most."""
REPEATS_WITHIN_S: Final = 10.0
"""Seconds for all repetitions together: each has its own time-out besides."""


async def search_distinct(
    searcher: VectorSearcher,
    collection: str,
    embedding: Embedding,
    *,
    top_k: int,
    where: Mapping[str, JsonValue] | None,
    score_threshold: float | None,
) -> list[Hit]:
    """Return the best passages, all different and of one generation of their document; fewer only if there are no more.

    Each repetition finds at least one passage that is new, so there are about `top_k` at most.

    Raises:
        NotFound: There is no such collection.
        InvalidInput: The filter cannot be compared.
        Unavailable: The index did not answer, or it took too long to find so many.
    """
    found = await searcher.search(collection, embedding, limit=2 * top_k, where=where, score_threshold=score_threshold)
    kept = _fit_together(found)
    if len(kept) >= top_k or _is_all(found, kept, limit=2 * top_k, score_threshold=score_threshold):
        return kept[:top_k]
    try:
        async with asyncio.timeout(REPEATS_WITHIN_S):
            return await _search_deeper(
                searcher, collection, embedding, found, top_k=top_k, where=where, score_threshold=score_threshold
            )
    except TimeoutError as error:
        raise Unavailable(
            f"the index did not find {top_k} different passages within {REPEATS_WITHIN_S:g} s", service="qdrant"
        ) from error


async def _search_deeper(
    searcher: VectorSearcher,
    collection: str,
    embedding: Embedding,
    found: Sequence[Hit],
    *,
    top_k: int,
    where: Mapping[str, JsonValue] | None,
    score_threshold: float | None,
) -> list[Hit]:
    """Search again without what was dropped, until enough is kept or nothing new can be found."""
    kept, left_out, limit = _fit_together(found), NOTHING, 2 * top_k
    for _ in range(top_k + 2):
        left_out = _learned(left_out, found, kept)
        limit = max(2 * top_k, min(2 * limit, MOST_FETCHED))
        found = await searcher.search(
            collection, embedding, limit=limit, where=where, score_threshold=score_threshold, left_out=left_out
        )
        kept = _fit_together(found)
        # Who stood for its copies can be outdated by now: then one of them may be found again.
        are_all_there = left_out.copies.keys() <= {hit.passage_key for hit in kept}
        is_all = _is_all(found, kept, limit=limit, score_threshold=score_threshold)
        if len(kept) >= top_k or (is_all and are_all_there):
            break
    return kept[:top_k]


def _fit_together(found: Sequence[Hit]) -> list[Hit]:
    return drop_duplicates(drop_older_generations(found))


def _is_all(found: Sequence[Hit], kept: Sequence[Hit], *, limit: int, score_threshold: float | None) -> bool:
    """Tell whether a search found all there is: a threshold also hides what only copies have pushed below it."""
    return len(found) < limit and (score_threshold is None or len(kept) == len(found))


def _learned(before: LeftOut, found: Sequence[Hit], kept: Sequence[Hit]) -> LeftOut:
    newest = dict(before.outdated)
    for hit in found:
        newest[hit.document_id] = max(hit.generation, newest.get(hit.document_id, 0))
    dropped = {hit.document_id for hit in found if hit.generation < newest[hit.document_id]} | before.outdated.keys()
    return LeftOut(
        copies={hit.passage_key: hit.point_id for hit in kept},
        outdated={document_id: newest[document_id] for document_id in sorted(dropped)},
    )
