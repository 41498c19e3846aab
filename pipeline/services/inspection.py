"""Looking at documents and coverage: what is served, what is cached, and why something is not."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy import Connection, Row, Select, and_, func, select

from pipeline.documents.corpora import Corpus, CorpusSpec, filled_specs
from pipeline.documents.manifest import unpack_spans
from pipeline.documents.states import DocumentState
from pipeline.documents.tables import CorpusRow, CorpusSpecRow, DocumentRow, LedgerRow, ManifestRow
from pipeline.errors import NotFound
from pipeline.jobs.installation import cache_epoch_at
from pipeline.services.refilling import corpora_of_unknown_coverage

PresenceCheck = Callable[[str, Sequence[bytes]], Sequence[bool]]
"""Says for a fingerprint and passage keys which entries the cache holds now."""


@dataclass(frozen=True, slots=True)
class PassageReport:
    """One served passage."""

    ordinal: int
    token_count: int | None
    """Tokens with separator under the active spec; None before they are known."""
    cached: bool


@dataclass(frozen=True, slots=True)
class DocumentReport:
    """One document as callers see it."""

    id: str
    generation: int
    served_generation: int
    state: str
    passages: tuple[PassageReport, ...]
    last_error: str | None


def get_document(
    connection: Connection, corpus: Corpus, document_id: str, *, is_present: PresenceCheck | None
) -> DocumentReport:
    """Return one document.

    Args:
        connection: An open unit.
        corpus: Its corpus.
        document_id: Its id.
        is_present: Asks the cache; None to believe the ledger.

    Raises:
        NotFound: There is none of that id, or it is deleted.
        Unavailable: The cache was asked and did not answer.
    """
    row = connection.execute(_documents(corpus).where(DocumentRow.id == document_id)).first()
    if row is None or row.state == DocumentState.DELETED:
        raise NotFound(f"there is no document {document_id!r} in corpus {corpus.name!r}")
    return _report(row, _active(connection, corpus), is_present, epoch_at=cache_epoch_at(connection))


def list_documents(
    connection: Connection,
    corpus: Corpus,
    *,
    after: str = "",
    limit: int = 100,
    state: str | None = None,
    is_present: PresenceCheck | None = None,
) -> list[DocumentReport]:
    """Return documents ordered by id, those after an id; deleted ones only when asked for by state.

    Args:
        connection: An open unit.
        corpus: Their corpus.
        after: Only documents whose id is greater.
        limit: At most this many.
        state: Only documents in this state.
        is_present: Asks the cache; None to believe the ledger.
    """
    statement = _documents(corpus).where(DocumentRow.id > after).order_by(DocumentRow.id).limit(limit)
    if state is None:
        statement = statement.where(DocumentRow.state != DocumentState.DELETED.value)
    else:
        statement = statement.where(DocumentRow.state == state)
    active, epoch_at = _active(connection, corpus), cache_epoch_at(connection)
    return [_report(row, active, is_present, epoch_at=epoch_at) for row in connection.execute(statement)]


def _active(connection: Connection, corpus: Corpus) -> CorpusSpec:
    return filled_specs(connection, corpus.pk)[0]


def _documents(corpus: Corpus) -> "Select[*tuple[Any, ...]]":
    active = select(CorpusSpecRow.spec_id).where(CorpusSpecRow.corpus_pk == corpus.pk, CorpusSpecRow.status == "active")
    return (
        select(
            DocumentRow.id,
            DocumentRow.generation,
            DocumentRow.served_generation,
            DocumentRow.state,
            DocumentRow.last_error,
            ManifestRow.passages,
            ManifestRow.generation.label("manifest_generation"),
            LedgerRow.token_counts,
            LedgerRow.generation.label("ledger_generation"),
            LedgerRow.written_at,
        )
        .outerjoin(ManifestRow, ManifestRow.document_pk == DocumentRow.pk)
        .outerjoin(
            LedgerRow,
            and_(LedgerRow.document_pk == DocumentRow.pk, LedgerRow.spec_id == active.scalar_subquery()),
        )
        .where(DocumentRow.corpus_pk == corpus.pk)
    )


def _report(
    row: "Row[*tuple[Any, ...]]", active: CorpusSpec, is_present: PresenceCheck | None, *, epoch_at: int
) -> DocumentReport:
    keys = [span.key for span in unpack_spans(row.passages or b"")]
    counted = row.ledger_generation is not None and row.ledger_generation == row.manifest_generation
    counts: list[int] = np.frombuffer(row.token_counts, dtype="<u4").tolist() if counted else []
    believed = counted and row.written_at >= epoch_at
    present = [believed] * len(keys) if is_present is None else is_present(active.fingerprint, keys)
    return DocumentReport(
        id=row.id,
        generation=row.generation,
        served_generation=row.served_generation,
        state=row.state,
        passages=tuple(
            PassageReport(ordinal, counts[ordinal] if counted else None, bool(cached))
            for ordinal, cached in enumerate(present)
        ),
        last_error=row.last_error,
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """Served passages of one corpus with an entry under one spec, by the ledger."""

    corpus: str
    spec: str
    passages: int
    covered: int
    tokens: int
    is_known: bool = True
    """False: the cache has evicted entries, and nobody knows which, until a verification has looked."""

    @property
    def share(self) -> float | None:
        """Return covered passages of all; 1 for an empty corpus, None when unknown."""
        if not self.is_known:
            return None
        return self.covered / self.passages if self.passages else 1.0


def list_coverage(connection: Connection, *, corpora: Sequence[str] | None = None) -> list[Coverage]:
    """Return coverage of every corpus under every spec it is filled for; entries of earlier epochs do not count."""
    served = (
        select(ManifestRow.corpus_pk, func.sum(ManifestRow.passage_count).label("passages"))
        .group_by(ManifestRow.corpus_pk)
        .subquery()
    )
    written = (
        select(
            LedgerRow.corpus_pk,
            LedgerRow.spec_id,
            func.sum(LedgerRow.passage_count).label("covered"),
            func.sum(LedgerRow.token_count).label("tokens"),
        )
        .join(
            ManifestRow,
            and_(ManifestRow.document_pk == LedgerRow.document_pk, ManifestRow.generation == LedgerRow.generation),
        )
        .where(LedgerRow.written_at >= cache_epoch_at(connection))
        .group_by(LedgerRow.corpus_pk, LedgerRow.spec_id)
        .subquery()
    )
    statement = (
        select(CorpusRow.name, CorpusSpecRow.spec_id, served.c.passages, written.c.covered, written.c.tokens)
        .join(CorpusSpecRow, CorpusSpecRow.corpus_pk == CorpusRow.pk)
        .outerjoin(served, served.c.corpus_pk == CorpusRow.pk)
        .outerjoin(written, and_(written.c.corpus_pk == CorpusRow.pk, written.c.spec_id == CorpusSpecRow.spec_id))
        .where(CorpusRow.dropped_at.is_(None), CorpusSpecRow.status != "dropped")
        .order_by(CorpusRow.name, CorpusSpecRow.spec_id)
    )
    if corpora is not None:
        statement = statement.where(CorpusRow.name.in_(corpora))
    unknown = set(corpora_of_unknown_coverage(connection).values())
    return [
        Coverage(name, spec, int(passages or 0), int(covered or 0), int(tokens or 0), is_known=name not in unknown)
        for name, spec, passages, covered, tokens in connection.execute(statement)
    ]


def count_states(connection: Connection, corpus_pk: int) -> dict[str, int]:
    """Return how many documents of a corpus are in each state."""
    statement = (
        select(DocumentRow.state, func.count()).where(DocumentRow.corpus_pk == corpus_pk).group_by(DocumentRow.state)
    )
    counted = {state: int(count) for state, count in connection.execute(statement)}
    return {state.value: counted.get(state.value, 0) for state in DocumentState}
