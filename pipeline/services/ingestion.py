"""Accepting documents: from validated changes to committed rows and the work they cause, in one transaction.

What is answered with 202 is in SQL together with its run item and its pending job. Nothing is published here: the
dispatcher finds pending jobs by itself, and a nudge after the commit only makes it look sooner.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from pipeline.database import Database, insert_missing, now_ms
from pipeline.documents.content import DocumentChange, deletion, hash_fields, text_change
from pipeline.documents.corpora import Corpus, create_corpus, find_corpus, hold_corpus
from pipeline.documents.readers import SourceDocument
from pipeline.documents.store import Acceptance, accept_deletions, accept_texts
from pipeline.documents.tables import IdempotencyKeyRow
from pipeline.documents.validation import check_corpus_name
from pipeline.errors import Conflict
from pipeline.jobs.runs import add_items, extend_open, open_run, seal, settle
from pipeline.jobs.store import INTERACTIVE_LIMIT, request_event_jobs
from pipeline.services.specs import ensure_spec
from pipeline.tokenizers import TokenSpec

IDEMPOTENCY_LIFE = timedelta(hours=24)
"""How long a repeated Idempotency-Key gets the first answer."""


@dataclass(frozen=True, slots=True)
class CorpusDefaults:
    """What a corpus is made with when its first documents create it."""

    spec: Callable[[], TokenSpec]
    """Loads the default spec; called only when a corpus is made."""
    splitter: str
    embedder: str


@dataclass(frozen=True, slots=True)
class AcceptedDocument:
    """What became of one document of a request."""

    id: str
    generation: int
    status: str
    """`accepted` or `unchanged`."""


@dataclass(frozen=True, slots=True)
class IngestAnswer:
    """The answer to a PUT of documents."""

    run_id: str
    accepted: int
    unchanged: int
    documents: tuple[AcceptedDocument, ...]


@dataclass(frozen=True, slots=True)
class DeleteAnswer:
    """The answer to a DELETE of documents."""

    run_id: str
    accepted: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's promise that equal keys mean the same request."""

    principal: str
    """Whose key: API key id, empty without keys."""
    key: str
    body: bytes
    """The request as it came; another one under the same key is a conflict."""


class IngestionService:
    """Accepts changes of documents."""

    def __init__(self, database: Database, *, defaults: CorpusDefaults, nudge: Callable[[], None]) -> None:
        """Remember what is needed.

        Args:
            database: Where changes are kept.
            defaults: For corpora that do not exist yet.
            nudge: Called after a commit that left work; must not wait and may fail silently.
        """
        self._database = database
        self._defaults = defaults
        self._nudge = nudge

    def put(
        self, corpus_name: str, documents: Sequence[SourceDocument], *, idempotency: Idempotency | None = None
    ) -> IngestAnswer:
        """Accept a request's documents, all in one transaction, so that a refused request leaves nothing.

        Args:
            corpus_name: Created with the defaults if it does not exist.
            documents: Validated, ids not repeated.
            idempotency: When given and seen before with the same body, the first answer is returned and nothing done.

        Raises:
            Conflict: The key was used for another body.
        """
        queue = _queue(len(documents))
        self._ensure_corpus(corpus_name)
        with self._database.write() as connection:
            if (answer := _repeated(connection, corpus_name, idempotency)) is not None:
                return _ingest_answer(answer)
            corpus = hold_corpus(connection, corpus_name)
            run_id = open_run(connection, corpus.pk, kind="ingest", sealed=True)
            accepted = _accept(connection, corpus, run_id, _changes(corpus, documents), queue=queue)
            result = IngestAnswer(run_id, *_count(accepted), _describe(accepted))
            _remember(connection, corpus_name, idempotency, orjson.dumps(result))
        self._after(run_id, accepted)
        return result

    def delete(self, corpus_name: str, ids: Sequence[str], *, idempotency: Idempotency | None = None) -> DeleteAnswer:
        """Accept deletions, all in one transaction; ids that do not exist are counted.

        Raises:
            NotFound: There is no such corpus.
            Conflict: The Idempotency-Key was used for another body.
        """
        wanted = list(dict.fromkeys(ids))
        with self._database.write() as connection:
            corpus = hold_corpus(connection, corpus_name)
            if (answer := _repeated(connection, corpus_name, idempotency)) is not None:
                return DeleteAnswer(**answer)
            run_id = open_run(connection, corpus.pk, kind="delete", sealed=True)
            changes = [deletion(document_id) for document_id in wanted]
            accepted = _accept(connection, corpus, run_id, changes, queue=_queue(len(wanted)))
            result = DeleteAnswer(run_id, accepted=len(accepted), unknown=len(wanted) - len(accepted))
            _remember(connection, corpus_name, idempotency, orjson.dumps(result))
        self._after(run_id, accepted)
        return result

    def open(self, corpus_name: str, *, kind: str) -> str:
        """Open a run that is filled in several transactions and then sealed; return its id.

        Raises:
            NotFound: Kind `delete`, and there is no such corpus.
        """
        if kind == "ingest":
            self._ensure_corpus(corpus_name)
        with self._database.write() as connection:
            corpus = hold_corpus(connection, corpus_name)
            return open_run(connection, corpus.pk, kind=kind, sealed=False)

    def add(
        self, run_id: str, corpus_name: str, documents: Sequence[SourceDocument], *, queue: str
    ) -> tuple[AcceptedDocument, ...]:
        """Accept one batch of an open run.

        Args:
            run_id: From `open`.
            corpus_name: The run's corpus.
            documents: At most 500, validated, ids not repeated.
            queue: `interactive` or `bulk`.
        """
        with self._database.write() as connection:
            extend_open(connection, run_id)
            corpus = hold_corpus(connection, corpus_name)
            accepted = _accept(connection, corpus, run_id, _changes(corpus, documents), queue=queue)
        self._nudge()
        return _describe(accepted)

    def add_deletions(self, run_id: str, corpus_name: str, ids: Sequence[str], *, queue: str) -> int:
        """Accept one batch of deletions of an open run; return how many of the ids existed."""
        with self._database.write() as connection:
            extend_open(connection, run_id)
            corpus = hold_corpus(connection, corpus_name)
            changes = [deletion(document_id) for document_id in dict.fromkeys(ids)]
            accepted = _accept(connection, corpus, run_id, changes, queue=queue)
        self._nudge()
        return len(accepted)

    def keep_open(self, run_id: str) -> None:
        """Show that the client of an open run is alive though it has nothing to add right now."""
        with self._database.write() as connection:
            extend_open(connection, run_id)

    def seal(self, run_id: str) -> None:
        """Say that an open run is complete."""
        with self._database.write() as connection:
            seal(connection, run_id)
        settle(self._database, [run_id])

    def _ensure_corpus(self, name: str) -> None:
        """Make the corpus in a transaction of its own, since loading its tokenizer takes a moment."""
        check_corpus_name(name)
        with self._database.read() as connection:
            if find_corpus(connection, name) is not None:
                return
        spec = self._defaults.spec()
        with self._database.write() as connection:
            ensure_spec(connection, spec)
            create_corpus(
                connection,
                name,
                spec_id=spec.spec_id,
                splitter=self._defaults.splitter,
                embedder=self._defaults.embedder,
            )

    def _after(self, run_id: str, accepted: Sequence[Acceptance]) -> None:
        if any(item.changed for item in accepted):
            self._nudge()
        else:
            settle(self._database, [run_id])


def _queue(documents: int) -> str:
    return "interactive" if documents <= INTERACTIVE_LIMIT else "bulk"


def _changes(corpus: Corpus, documents: Iterable[SourceDocument]) -> list[DocumentChange]:
    return [
        text_change(document.id, text=document.text, metadata=document.metadata, splitter=corpus.splitter)
        for document in documents
    ]


def _accept(
    connection: Connection, corpus: Corpus, run_id: str, changes: Sequence[DocumentChange], *, queue: str
) -> list[Acceptance]:
    """Store heads, run items and the jobs that will publish them."""
    deletes = bool(changes) and changes[0].text is None
    accept = accept_deletions if deletes else accept_texts
    accepted = accept(connection, corpus, changes, queue=queue)
    add_items(connection, run_id, accepted)
    buckets = {item.bucket for item in accepted if item.changed}
    request_event_jobs(connection, corpus.pk, queue=queue, buckets=buckets)
    return accepted


def _count(accepted: Sequence[Acceptance]) -> tuple[int, int]:
    changed = sum(item.changed for item in accepted)
    return changed, len(accepted) - changed


def _describe(accepted: Sequence[Acceptance]) -> tuple[AcceptedDocument, ...]:
    return tuple(
        AcceptedDocument(item.id, item.generation, "accepted" if item.changed else "unchanged") for item in accepted
    )


def _ingest_answer(answer: dict[str, Any]) -> IngestAnswer:
    documents = tuple(AcceptedDocument(**document) for document in answer.pop("documents"))
    return IngestAnswer(**answer, documents=documents)


def _repeated(connection: Connection, corpus: str, idempotency: Idempotency | None) -> dict[str, Any] | None:
    """Take the key for this transaction, or return the first answer to a repeated request.

    Two equal requests race here: the second waits for the first one's row and then finds its answer. A key older than
    its life is forgotten first; those that nobody asks for again are pruned.
    """
    if idempotency is None:
        return None
    now = connection.execute(select(now_ms())).scalar_one()
    expired = now - round(IDEMPOTENCY_LIFE.total_seconds() * 1000)
    name = {"principal": idempotency.principal, "corpus": corpus, "key": idempotency.key}
    connection.execute(delete(_KEYS).filter_by(**name).where(_KEYS.c.created_at < expired))
    row = {**name, "body_hash": hash_fields(idempotency.body), "answer": "", "created_at": now}
    if insert_missing(connection, _KEYS, [row], returning=["key"]):
        return None
    first = connection.execute(select(_KEYS.c.body_hash, _KEYS.c.answer).filter_by(**name)).one()
    if first.body_hash != row["body_hash"]:
        raise Conflict(f"Idempotency-Key {idempotency.key!r} was used for another request body")
    answer: dict[str, Any] = orjson.loads(first.answer)
    return answer


def _remember(connection: Connection, corpus: str, idempotency: Idempotency | None, answer: bytes) -> None:
    if idempotency is not None:
        name = {"principal": idempotency.principal, "corpus": corpus, "key": idempotency.key}
        connection.execute(update(_KEYS).filter_by(**name).values(answer=answer.decode()))


_KEYS = IdempotencyKeyRow.metadata.tables["idempotency_keys"]
