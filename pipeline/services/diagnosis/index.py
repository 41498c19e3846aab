"""Checks of Qdrant: does it refuse a late writer, which is what every publication relies on, and is it large enough.

Versions and documentation say less than behaviour: the conditional writes are tried on a collection of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import numpy as np

from pipeline.database import Database
from pipeline.documents.corpora import list_corpora
from pipeline.errors import ForefillError, NotFound, Unavailable
from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.qdrant import QdrantWriter
from pipeline.retrieval.vector_index import Point, PointState, Tombstone, VectorIndexWriter
from pipeline.services.diagnosis.findings import Finding

EMBEDDED_POINTS = 50_000
"""Points up to which the embedded engine is quick enough."""

_DIMENSION = 4
_SUBJECT = "qdrant"


def check_behaviour(writer: QdrantWriter) -> Iterator[Finding]:
    """Yield whether Qdrant answers and keeps what a late writer must not overwrite."""
    try:
        title = writer.title()
        yield Finding.ok(_SUBJECT, f"{title} answers")
        yield from try_fence(writer)
    except ForefillError as error:
        remedy = "start it, or correct FOREFILL_QDRANT_URL and FOREFILL_QDRANT_API_KEY"
        yield Finding.fail(_SUBJECT, str(error), remedy=remedy)


def try_fence(writer: VectorIndexWriter) -> Iterator[Finding]:
    """Play update, zombie and deletion on a scratch collection, and compare what is stored with what must be.

    Raises:
        Unavailable: Qdrant did not answer.
        InvalidInput: It refused a write that it must take.
    """
    point_id = str(uuid4())
    newest, buried = PointState(point_id, "doctor", 2, buried=False), PointState(point_id, "doctor", 3, buried=True)
    with _scratch(writer) as name:
        writer.upsert(name, [_point(point_id, generation=2)])
        writer.upsert(name, [_point(point_id, generation=1)])
        late_update = writer.states(name, [point_id]).get(point_id)
        writer.bury(name, [Tombstone(point_id, "doctor", 3)])
        writer.upsert(name, [_point(point_id, generation=2)])
        late_revival = writer.states(name, [point_id]).get(point_id)
        count = writer.count(name)
    if late_update == newest and late_revival == buried and count == 0:
        yield Finding.ok("qdrant fence", "late writers are refused")
    else:
        yield Finding.fail(
            "qdrant fence",
            f"a late writer was not refused: {late_update}, then {late_revival}",
            remedy="use a Qdrant with conditional updates (`update_filter`, 1.16 or newer)",
        )


def check_size(writer: QdrantWriter, database: Database) -> Iterator[Finding]:
    """Yield whether the embedded engine still is the right one for so many points."""
    with database.read() as connection:
        collections = [corpus.collection for corpus in list_corpora(connection)]
    try:
        points = sum(_count(writer, name) for name in collections)
        is_embedded = "embedded" in writer.title()
    except Unavailable:
        return  # said already
    if is_embedded and points > EMBEDDED_POINTS:
        yield Finding.warn(
            "qdrant size",
            f"{points:,} points in the embedded engine, which compares a question with every one of them",
            remedy="move to a Qdrant server: set FOREFILL_QDRANT_URL and ingest again",
        )
    else:
        yield Finding.ok("qdrant size", f"{points:,} points")


def _count(writer: VectorIndexWriter, name: str) -> int:
    try:
        return writer.count(name)
    except NotFound:
        return 0  # nothing was published to this corpus yet


@contextmanager
def _scratch(writer: VectorIndexWriter) -> Iterator[str]:
    name = f"forefill-doctor-{uuid4().hex}"
    writer.ensure_collection(name, dimension=_DIMENSION)
    try:
        yield name
    finally:
        writer.drop_collection(name)


def _point(point_id: str, *, generation: int) -> Point:
    dense = np.full(_DIMENSION, 0.5, dtype=np.float32)
    return Point(
        point_id=point_id,
        document_id="doctor",
        ordinal=0,
        generation=generation,
        passage_key="0" * 32,
        text="doctor",
        metadata={},
        token_counts={},
        embedding=Embedding(dense, SparseVector(indices=(1,), values=(1.0,))),
    )
