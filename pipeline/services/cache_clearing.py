"""Dropping entries on purpose: all of them, or those of one corpus. Nothing else in the cache is touched."""

from collections.abc import Iterator

from sqlalchemy import select

from pipeline.database import Database
from pipeline.documents.corpora import filled_specs, get_corpus
from pipeline.documents.manifest import unpack_spans
from pipeline.documents.tables import ManifestRow
from pipeline.token_cache import TokenWriter

_SLICE = 200


def clear_entries(database: Database, cache: TokenWriter, *, corpus: str | None = None) -> int:
    """Drop entries and return how many there were; queries tokenize by themselves until they are filled again.

    Args:
        database: Knows which passages a corpus serves.
        cache: Where entries are.
        corpus: Only entries of passages it serves; None for all entries. An entry belongs to a text, so another
            corpus that serves the same text loses it, too.

    Raises:
        NotFound: There is no such corpus.
        Unavailable: Database or cache did not answer; some entries may be gone.
    """
    if corpus is None:
        return cache.clear()
    with database.read() as connection:
        corpus_pk = get_corpus(connection, corpus).pk
        fingerprints = [spec.fingerprint for spec in filled_specs(connection, corpus_pk)]
    cleared = 0
    for keys in _served_keys(database, corpus_pk):
        cleared += sum(cache.delete(fingerprint, keys) for fingerprint in fingerprints)
    return cleared


def _served_keys(database: Database, corpus_pk: int) -> Iterator[list[bytes]]:
    """Yield the passage keys of a few hundred documents at a time, in constant memory."""
    last = 0
    while True:
        statement = (
            select(ManifestRow.document_pk, ManifestRow.passages)
            .where(ManifestRow.corpus_pk == corpus_pk, ManifestRow.document_pk > last)
            .order_by(ManifestRow.document_pk)
            .limit(_SLICE)
        )
        with database.read() as connection:
            rows = connection.execute(statement).all()
        if not rows:
            return
        last = rows[-1].document_pk
        yield [span.key for row in rows for span in unpack_spans(row.passages)]
