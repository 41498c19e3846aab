"""The SQL side of publishing documents: read what is behind, record intents, write the ledger.

Each function works inside the caller's unit of work, next to the check of the job's fence. A document whose head moved
on in the meantime is left alone: its newer generation is somebody else's work.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, select, update

from pipeline.database import among, now_ms, upsert
from pipeline.documents.manifest import PassageSpan, pack_points, pack_spans, unpack_points, unpack_spans
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import ContentRow, DocumentRow, LedgerRow, ManifestRow, PointIntentRow

_DOCUMENTS = DocumentRow.metadata.tables["documents"]
_BEHIND = (DocumentRow.published_generation < DocumentRow.generation) & (DocumentRow.state != DocumentState.DEAD.value)


@dataclass(frozen=True, slots=True)
class DocumentWork:
    """One document that is behind, with everything its publication needs from SQL."""

    pk: int
    id: str
    generation: int
    """The head this work publishes."""
    text: str | None
    """None: the head is a deletion."""
    attributes: str
    """Metadata, JSON."""
    attempts: int
    accepted_at: int
    served: tuple[PassageSpan, ...]
    """Passages search can find now."""
    older_points: frozenset[str]
    """Points that older generations said they would write and nobody has retired."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """Entries of one document written under one spec."""

    spec_id: str
    token_counts: tuple[int, ...]
    """Tokens of each passage with its separator, in order."""


@dataclass(frozen=True, slots=True)
class PublishedDocument:
    """A document whose entries and points are written."""

    work: DocumentWork
    spans: tuple[PassageSpan, ...]
    ledger: tuple[LedgerEntry, ...]


def find_behind(
    connection: Connection, corpus_pk: int, *, bucket: int, queue: str, limit: int, max_bytes: int
) -> list[int]:
    """Return rows of due documents that are behind, oldest change first, bounded by number and by bytes of text.

    One that failed before comes alone, after the others: what it did to its worker once, it does to no group again.
    """
    statement = (
        select(DocumentRow.pk, DocumentRow.text_bytes, DocumentRow.attempts)
        .where(
            DocumentRow.corpus_pk == corpus_pk,
            DocumentRow.queue == queue,
            DocumentRow.bucket == bucket,
            _BEHIND,
            DocumentRow.available_at <= now_ms(),
        )
        .order_by(DocumentRow.accepted_at, DocumentRow.pk)
        .limit(limit)
    )
    rows = connection.execute(statement).all()
    chosen: list[int] = []
    total = 0
    for pk, size, attempts in rows:
        if attempts:
            continue
        total += size
        if chosen and total > max_bytes:
            break
        chosen.append(pk)
    return chosen or [row.pk for row in rows[:1]]


def next_due_at(connection: Connection, corpus_pk: int, *, bucket: int, queue: str) -> int | None:
    """Return when the next document of a bucket that is behind may be worked on, in ms; None if none is behind."""
    statement = (
        select(DocumentRow.available_at)
        .where(DocumentRow.corpus_pk == corpus_pk, DocumentRow.queue == queue, DocumentRow.bucket == bucket, _BEHIND)
        .order_by(DocumentRow.available_at)
        .limit(1)
    )
    return connection.execute(statement).scalar_one_or_none()


def load_work(connection: Connection, pks: Sequence[int]) -> list[DocumentWork]:
    """Read heads, texts, served passages and older intents of documents, in the order given."""
    heads = {
        row.pk: row
        for row in connection.execute(
            select(
                DocumentRow.pk,
                DocumentRow.id,
                DocumentRow.generation,
                DocumentRow.attempts,
                DocumentRow.accepted_at,
                DocumentRow.state,
                ContentRow.text,
                ContentRow.attributes,
            )
            .outerjoin(ContentRow, ContentRow.document_pk == DocumentRow.pk)
            .where(among(DocumentRow.pk, pks))
        )
    }
    manifests = select(ManifestRow.document_pk, ManifestRow.passages).where(among(ManifestRow.document_pk, pks))
    served = {pk: tuple(unpack_spans(packed)) for pk, packed in connection.execute(manifests)}
    older = _older_intents(connection, {pk: row.generation for pk, row in heads.items()})
    return [
        DocumentWork(
            pk=pk,
            id=heads[pk].id,
            generation=heads[pk].generation,
            text=None if heads[pk].state == DocumentState.DELETED else heads[pk].text,
            attributes=heads[pk].attributes or "{}",
            attempts=heads[pk].attempts,
            accepted_at=heads[pk].accepted_at,
            served=served.get(pk, ()),
            older_points=older.get(pk, frozenset()),
        )
        for pk in pks
        if pk in heads
    ]


def _older_intents(connection: Connection, generations: Mapping[int, int]) -> dict[int, frozenset[str]]:
    statement = select(PointIntentRow.document_pk, PointIntentRow.generation, PointIntentRow.points).where(
        among(PointIntentRow.document_pk, generations)
    )
    found: dict[int, frozenset[str]] = {}
    for pk, generation, packed in connection.execute(statement):
        if generation < generations[pk]:
            found[pk] = found.get(pk, frozenset()) | frozenset(unpack_points(packed))
    return found


def lock_unmoved(connection: Connection, works: Sequence[DocumentWork]) -> set[int]:
    """Lock the documents' rows in order and return those whose head is still the one being published."""
    generations = {work.pk: work.generation for work in works}
    statement = (
        select(DocumentRow.pk, DocumentRow.generation, DocumentRow.published_generation)
        .where(among(DocumentRow.pk, generations))
        .order_by(DocumentRow.id)
        .with_for_update()
    )
    return {
        row.pk
        for row in connection.execute(statement)
        if row.generation == generations[row.pk] and row.published_generation < row.generation
    }


def record_intents(connection: Connection, points: Mapping[DocumentWork, Sequence[str]]) -> set[int]:
    """Record the points about to be written, for documents whose head has not moved; return those documents.

    After this commits, a newer generation's worker knows every point this one may ever write.
    """
    unmoved = lock_unmoved(connection, list(points))
    now = connection.execute(select(now_ms())).scalar_one()
    rows = [
        {
            "document_pk": work.pk,
            "generation": work.generation,
            "points": pack_points(point_ids),
            "recorded_at": now,
        }
        for work, point_ids in points.items()
        if work.pk in unmoved
    ]
    table = PointIntentRow.metadata.tables["point_intents"]
    upsert(connection, table, rows, key=["document_pk", "generation"], update=["points", "recorded_at"])
    return unmoved


def store_published(
    connection: Connection, corpus_pk: int, published: Sequence[PublishedDocument], *, filled_from: int
) -> set[int]:
    """Make published generations the served ones, with manifest and ledger; return the documents it held for.

    A document whose head moved is not touched: its points belong to an intent that the newer generation retires.

    Args:
        connection: An open writing unit.
        corpus_pk: Their corpus.
        published: What was written.
        filled_from: Database clock in ms before the first of their entries was stored.
    """
    unmoved = lock_unmoved(connection, [document.work for document in published])
    held = [document for document in published if document.work.pk in unmoved]
    _advance_published(connection, held)
    for document in held:
        _forget_intents(connection, document.work)
    gone = [document.work.pk for document in held if document.work.text is None]
    connection.execute(delete(ManifestRow).where(among(ManifestRow.document_pk, gone)))
    connection.execute(delete(LedgerRow).where(among(LedgerRow.document_pk, gone)))
    kept = [document for document in held if document.work.text is not None]
    _store_manifests(connection, corpus_pk, kept)
    filled = [LedgerWrite(d.work.pk, d.work.generation, entry) for d in kept for entry in d.ledger]
    store_ledger(connection, corpus_pk, filled, filled_from=filled_from)
    return unmoved


def _advance_published(connection: Connection, held: Sequence[PublishedDocument]) -> None:
    if not held:
        return
    statement = (
        update(_DOCUMENTS)
        .where(_DOCUMENTS.c.pk == bindparam("row"))
        .values(
            published_generation=_DOCUMENTS.c.generation,
            served_generation=bindparam("served"),
            state=bindparam("next_state"),
            attempts=0,
            last_error=None,
        )
    )
    rows = [
        {"row": d.work.pk, "served": 0, "next_state": DocumentState.DELETED.value}
        if d.work.text is None
        else {"row": d.work.pk, "served": d.work.generation, "next_state": DocumentState.SERVED.value}
        for d in held
    ]
    connection.execute(statement, rows)


def _forget_intents(connection: Connection, work: DocumentWork) -> None:
    """Drop intents up to this generation: what they named is served now, or buried under a tombstone."""
    connection.execute(
        delete(PointIntentRow).where(
            PointIntentRow.document_pk == work.pk, PointIntentRow.generation <= work.generation
        )
    )


def _store_manifests(connection: Connection, corpus_pk: int, published: Iterable[PublishedDocument]) -> None:
    rows = [
        {
            "document_pk": document.work.pk,
            "corpus_pk": corpus_pk,
            "generation": document.work.generation,
            "passage_count": len(document.spans),
            "passages": pack_spans(document.spans),
        }
        for document in published
    ]
    table = ManifestRow.metadata.tables["manifests"]
    upsert(connection, table, rows, key=["document_pk"], update=["generation", "passage_count", "passages"])


@dataclass(frozen=True, slots=True)
class LedgerWrite:
    """The entries of one document's generation under one spec, just written."""

    document_pk: int
    generation: int
    entry: LedgerEntry


def store_ledger(connection: Connection, corpus_pk: int, writes: Iterable[LedgerWrite], *, filled_from: int) -> None:
    """Record which entries of which generation were written.

    The time recorded is one before they were stored: entries that were stored just before the cache was lost are then
    known to be lost with it, however late this transaction comes.
    """
    rows = [
        {
            "spec_id": write.entry.spec_id,
            "document_pk": write.document_pk,
            "corpus_pk": corpus_pk,
            "generation": write.generation,
            "passage_count": len(write.entry.token_counts),
            "token_count": sum(write.entry.token_counts),
            "token_counts": struct.pack(f"<{len(write.entry.token_counts)}I", *write.entry.token_counts),
            "written_at": filled_from,
        }
        for write in writes
    ]
    columns = ["generation", "passage_count", "token_count", "token_counts", "written_at"]
    upsert(connection, LedgerRow.metadata.tables["ledger"], rows, key=["spec_id", "document_pk"], update=columns)


@dataclass(frozen=True, slots=True)
class DocumentFailure:
    """One document's failed attempt."""

    work: DocumentWork
    stage: str
    """`split`, `tokenize`, `embed`, `publish` or `worker`."""
    error: str
    """One sentence for an operator; never document text."""
    final: bool
    """True: trying again cannot help."""


def store_failures(
    connection: Connection,
    failures: Sequence[DocumentFailure],
    *,
    max_attempts: int,
    delays_ms: Mapping[int, int],
) -> set[int]:
    """Count failed attempts of unmoved documents and put them off, or give them up; return those given up.

    Args:
        connection: An open writing unit.
        failures: One per document.
        max_attempts: Attempts after which a document is dead.
        delays_ms: Milliseconds until the next attempt, by document row.
    """
    unmoved = lock_unmoved(connection, [failure.work for failure in failures])
    dead: set[int] = set()
    for failure in failures:
        if failure.work.pk not in unmoved:
            continue
        attempts = failure.work.attempts + 1
        # A deletion depends on nothing in the document: it is tried for ever.
        gives_up = (failure.final or attempts >= max_attempts) and failure.work.text is not None
        values: dict[str, object] = {"attempts": attempts, "last_error": failure.error}
        if gives_up:
            dead.add(failure.work.pk)
            values["state"] = DocumentState.DEAD.value
        else:
            values["available_at"] = now_ms() + delays_ms[failure.work.pk]
        connection.execute(update(_DOCUMENTS).where(_DOCUMENTS.c.pk == failure.work.pk).values(values))
    return dead
