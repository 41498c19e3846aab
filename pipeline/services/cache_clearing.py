"""Dropping entries on purpose: all of them, or those of one corpus. Nothing else in the cache is touched."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import select

from pipeline.database import Database, now_ms
from pipeline.documents.corpora import filled_specs, get_corpus
from pipeline.documents.manifest import unpack_spans
from pipeline.documents.tables import ManifestRow
from pipeline.errors import Unavailable
from pipeline.services.cache_epoch import give_up_epoch, renew_epoch
from pipeline.services.refilling import Debt, owe, pursue_refills
from pipeline.token_cache import TokenWriter

_SLICE = 200


@dataclass(frozen=True, slots=True)
class Cleared:
    """What clearing came to."""

    entries: int
    """Entries that were there."""
    runs: tuple[str, ...]
    """Backfills that fill them again."""


def clear_entries(database: Database, cache: TokenWriter, *, corpus: str | None = None, refill: bool) -> Cleared:
    """Drop entries; queries tokenize by themselves until they are filled again.

    Args:
        database: Knows which passages a corpus serves.
        cache: Where entries are.
        corpus: Only entries of passages it serves; None for all entries. An entry belongs to a text, so another
            corpus that serves the same text loses it, too.
        refill: Whether to have them filled again. Without, documents are filled as they change, and by a retokenize.

    Raises:
        NotFound: There is no such corpus.
        Unavailable: Database or cache did not answer; some entries may be gone, and what may be is filled again.
    """
    if corpus is None:
        entries = _clear_all(database, cache, refill=refill)
    else:
        entries = _clear_corpus(database, cache, corpus, refill=refill)
    return Cleared(entries, tuple(pursue_refills(database)))


def _clear_all(database: Database, cache: TokenWriter, *, refill: bool) -> int:
    """Drop every entry, then begin an epoch: what was filled and dropped again meanwhile must not be believed."""
    cache.ping()
    if refill:
        give_up_epoch(database)  # whoever is killed in the middle of this leaves the rest to the dispatcher
    try:
        return cache.clear()
    finally:
        _begin_epoch(database, cache, refill=refill)


def _begin_epoch(database: Database, cache: TokenWriter, *, refill: bool) -> None:
    try:
        renew_epoch(database, cache, refill=refill)
    except Unavailable:
        give_up_epoch(database)  # the next look at the cache begins one
        raise


def _clear_corpus(database: Database, cache: TokenWriter, name: str, *, refill: bool) -> int:
    with database.read() as connection:
        corpus_pk = get_corpus(connection, name).pk
        fingerprints = [spec.fingerprint for spec in filled_specs(connection, corpus_pk)]
    cleared = 0
    try:
        for keys in _served_keys(database, corpus_pk):
            cleared += sum(cache.delete(fingerprint, keys) for fingerprint in fingerprints)
    finally:
        with database.write() as connection:
            now = connection.execute(select(now_ms())).scalar_one()
            owe(connection, [corpus_pk], Debt(since=0, before=now, refill=refill))
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
