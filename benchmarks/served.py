"""A corpus that is served and not yet filled: what a backfill starts from.

Rows are written by the product's own functions, the ones that accept and publish documents, with the product's cuts;
only embedding and Qdrant are left out, which a backfill never asks. So hundreds of megabytes are there in half a
minute, and the work that is then measured finds exactly what it would find after a real ingestion.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from sqlalchemy import Connection, delete

from benchmarks.corpus import Document
from benchmarks.texts import SPEC
from pipeline.database import Database
from pipeline.documents.content import text_change
from pipeline.documents.corpora import Corpus, create_corpus
from pipeline.documents.manifest import PassageSpan
from pipeline.documents.publication import DocumentWork, PublishedDocument, load_work, store_published
from pipeline.documents.splitting import Splitter
from pipeline.documents.store import accept_texts
from pipeline.documents.tables import LedgerRow
from pipeline.retrieval.embedders import embedder_name
from pipeline.services.specs import ensure_spec
from pipeline.settings import Settings
from pipeline.tokenizers import load_spec

_BATCH = 200


@dataclass(frozen=True, slots=True)
class Served:
    """A corpus as it lies in SQL."""

    name: str
    pk: int
    documents: int
    passages: int
    text_bytes: int
    """UTF-8 bytes of all passages."""


def serve(database: Database, settings: Settings, name: str, documents: Iterable[Document]) -> Served:
    """Make a corpus whose documents are served, without points and without ledger."""
    splitter = Splitter()
    spec = load_spec(SPEC)
    with database.write() as connection:
        ensure_spec(connection, spec)
        corpus = create_corpus(
            connection, name, spec_id=SPEC, splitter=splitter.identity, embedder=embedder_name(settings)
        )
    count = passages = size = 0
    for batch in _batches(documents):
        with database.write() as connection:
            published = _publish(connection, corpus, batch, splitter)
        count += len(published)
        passages += sum(len(document.spans) for document in published)
        size += sum(_passage_bytes(document) for document in published)
    return Served(name, corpus.pk, count, passages, size)


def forget_entries(database: Database, corpus_pk: int) -> None:
    """Make the ledger of a corpus empty, as if nothing had ever been filled."""
    with database.write() as connection:
        connection.execute(delete(LedgerRow).where(LedgerRow.corpus_pk == corpus_pk))


def _publish(
    connection: Connection, corpus: Corpus, batch: Sequence[Document], splitter: Splitter
) -> list[PublishedDocument]:
    changes = [
        text_change(document.id, text=document.text, metadata={}, splitter=corpus.splitter) for document in batch
    ]
    accepted = accept_texts(connection, corpus, changes, queue="bulk")
    works = load_work(connection, [each.document_pk for each in accepted])
    published = [PublishedDocument(work, _spans(work, splitter), ()) for work in works]
    store_published(connection, corpus.pk, published, filled_from=0)
    return published


def _spans(work: DocumentWork, splitter: Splitter) -> tuple[PassageSpan, ...]:
    return tuple(PassageSpan(each.key, each.start, each.end) for each in splitter.split(work.text or ""))


def _passage_bytes(document: PublishedDocument) -> int:
    text = document.work.text or ""
    return sum(len(text[span.start : span.end].encode()) for span in document.spans)


def _batches(documents: Iterable[Document]) -> Iterator[Sequence[Document]]:
    left = iter(documents)
    while batch := list(islice(left, _BATCH)):
        yield batch
