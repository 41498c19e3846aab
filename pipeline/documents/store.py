"""Accepting changes of documents, and reading what became of them.

Functions work inside the caller's unit of work, because a change, its run item and its job are one transaction.
Rows are locked in the order of their ids, then inserted in that order: two batches over the same documents wait for
each other, they do not deadlock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from pipeline.database import insert_missing, now_ms, upsert
from pipeline.documents.content import DocumentChange, bucket_of
from pipeline.documents.corpora import Corpus
from pipeline.documents.states import DocumentState, state_after_accept
from pipeline.documents.tables import ContentRow, CorpusRow, DocumentRow

_DOCUMENTS = DocumentRow.metadata.tables["documents"]
_CONTENTS = ContentRow.metadata.tables["document_contents"]


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What accepting one change did."""

    document_pk: int
    id: str
    generation: int
    changed: bool
    """False: the head already says the same."""
    waits: bool
    """Whether this generation is still to be published."""
    bucket: int


def accept_texts(
    connection: Connection, corpus: Corpus, changes: Sequence[DocumentChange], *, queue: str
) -> list[Acceptance]:
    """Store new heads for documents that differ from what is there; equal ones cost nothing.

    Args:
        connection: An open writing unit.
        corpus: Their corpus.
        changes: At most a few hundred, ids not repeated, none a deletion.
        queue: `interactive` or `bulk`: by which queue the work goes.

    Returns:
        One acceptance per change, in the order given.
    """
    now = connection.execute(select(now_ms())).scalar_one()
    ordered = sorted(changes, key=lambda change: change.id)
    heads = _lock_heads(connection, corpus.pk, [change.id for change in ordered])
    accepted = _insert_new(connection, corpus, [c for c in ordered if c.id not in heads], queue=queue, now=now)
    raced = [change.id for change in ordered if change.id not in heads and change.id not in accepted]
    heads |= _lock_heads(connection, corpus.pk, raced)
    for change in ordered:
        if (head := heads.get(change.id)) is not None:
            same = head.content_hash == change.content_hash and head.state not in (_DEAD, _DELETED)
            waits = not same or head.published_generation < head.generation
            accepted[change.id] = Acceptance(
                head.pk, head.id, head.generation + (not same), changed=not same, waits=waits, bucket=head.bucket
            )
    changed = [change for change in ordered if accepted[change.id].changed]
    _advance_heads(connection, [c for c in changed if c.id in heads], heads, queue=queue, now=now)
    _store_contents(connection, changed, accepted)
    return [accepted[change.id] for change in changes]


def accept_deletions(
    connection: Connection, corpus: Corpus, changes: Sequence[DocumentChange], *, queue: str
) -> list[Acceptance]:
    """Store deletions as new heads; ids that do not exist or are deleted already are left out of the answer."""
    now = connection.execute(select(now_ms())).scalar_one()
    heads = _lock_heads(connection, corpus.pk, sorted(change.id for change in changes))
    known = [change for change in changes if change.id in heads and heads[change.id].state != _DELETED]
    _advance_heads(connection, known, heads, queue=queue, now=now)
    pks = [heads[change.id].pk for change in known]
    connection.execute(delete(ContentRow).where(ContentRow.document_pk.in_(pks)))
    return [
        Acceptance(head.pk, head.id, head.generation + 1, changed=True, waits=True, bucket=head.bucket)
        for head in (heads[change.id] for change in known)
    ]


Head: TypeAlias = "Row[int, str, int, str, int, int, bytes | None, int]"
"""A locked head: pk, id, generation, state, published_generation, served_generation, content_hash, bucket."""

_DEAD, _DELETED = DocumentState.DEAD.value, DocumentState.DELETED.value


def _lock_heads(connection: Connection, corpus_pk: int, ids: Sequence[str]) -> dict[str, Head]:
    if not ids:
        return {}
    statement = (
        select(
            DocumentRow.pk,
            DocumentRow.id,
            DocumentRow.generation,
            DocumentRow.state,
            DocumentRow.published_generation,
            DocumentRow.served_generation,
            DocumentRow.content_hash,
            DocumentRow.bucket,
        )
        .where(DocumentRow.corpus_pk == corpus_pk, DocumentRow.id.in_(ids))
        .order_by(DocumentRow.id)
        .with_for_update()
    )
    return {row.id: row for row in connection.execute(statement)}


def _insert_new(
    connection: Connection, corpus: Corpus, changes: Sequence[DocumentChange], *, queue: str, now: int
) -> dict[str, Acceptance]:
    if not changes:
        return {}
    # After the heads were looked for: whoever has pruned one in between has raised the floor above it.
    floor = select(func.coalesce(CorpusRow.generation_floor, 0)).where(CorpusRow.pk == corpus.pk)
    first = int(connection.execute(floor).scalar_one()) + 1
    rows = [
        {
            "corpus_pk": corpus.pk,
            "id": change.id,
            "bucket": bucket_of(change.id, buckets=corpus.buckets),
            "queue": queue,
            "state": DocumentState.PENDING.value,
            "generation": first,
            "published_generation": 0,
            "served_generation": 0,
            "content_hash": change.content_hash,
            "text_bytes": change.text_bytes,
            "accepted_at": now,
            "available_at": now,
            "attempts": 0,
        }
        for change in changes
    ]
    inserted = insert_missing(connection, _DOCUMENTS, rows, returning=["pk", "id", "generation", "bucket"])
    return {
        row.id: Acceptance(row.pk, row.id, row.generation, changed=True, waits=True, bucket=row.bucket)
        for row in inserted
    }


def _advance_heads(
    connection: Connection,
    changes: Sequence[DocumentChange],
    heads: dict[str, Head],
    *,
    queue: str,
    now: int,
) -> None:
    if not changes:
        return
    statement = (
        update(_DOCUMENTS)
        .where(_DOCUMENTS.c.pk == bindparam("row"))
        .values(
            generation=_DOCUMENTS.c.generation + 1,
            state=bindparam("next_state"),
            queue=queue,
            content_hash=bindparam("hash"),
            text_bytes=bindparam("size"),
            accepted_at=now,
            available_at=now,
            attempts=0,
            last_error=None,
        )
    )
    rows = []
    for change in changes:
        head = heads[change.id]
        state = state_after_accept(
            DocumentState(head.state), served_generation=head.served_generation, deletes=change.text is None
        )
        rows.append({"row": head.pk, "next_state": state.value, "hash": change.content_hash, "size": change.text_bytes})
    connection.execute(statement, rows)


def _store_contents(connection: Connection, changes: Sequence[DocumentChange], accepted: dict[str, Acceptance]) -> None:
    rows = [
        {
            "document_pk": accepted[change.id].document_pk,
            "generation": accepted[change.id].generation,
            "attributes": change.attributes,
            "text": change.text,
        }
        for change in changes
    ]
    upsert(connection, _CONTENTS, rows, key=["document_pk"], update=["generation", "attributes", "text"])
