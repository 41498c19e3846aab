"""Publishing over real SQL: the twin of the fence model against it, event jobs that die, fail, and meet new specs."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

import pytest
from sqlalchemy import Connection, insert, select, update

from pipeline.database import Database, now_ms
from pipeline.documents.manifest import PassageSpan, unpack_points, unpack_spans
from pipeline.documents.publication import (
    DocumentWork,
    LedgerEntry,
    PublishedDocument,
    find_behind,
    load_work,
    next_due_at,
    record_intents,
    store_published,
)
from pipeline.documents.tables import CorpusRow, CorpusSpecRow, LedgerRow, ManifestRow, PointIntentRow
from pipeline.errors import ConfigurationError, InvalidInput, OutOfTime, Unavailable
from pipeline.jobs.claims import JOBS, leave_breadcrumb, rescue_expired
from pipeline.jobs.run_reports import list_errors
from pipeline.retrieval.embedding import Embedding
from pipeline.services import publishing
from pipeline.services.event_jobs import EventJobRunner, JobLimits
from pipeline.services.specs import ensure_spec
from pipeline.tokenizers import EncodedPassages, TokenSpec, encode_passages, load_spec
from tests.support.fence_world import LineSplitter, NamedEmbedder
from tests.support.publication_twin import DocumentRows, Lease, PublicationRules
from tests.support.write_path import (
    CORPUS,
    DOCUMENTS,
    InMemoryWorker,
    change_rows,
    document,
    expire_lease,
    ingestion,
    job,
    jobs,
    report,
    source,
    sources,
    taken,
)

SPEC_ID = "o200k_base/plain"


@dataclass(slots=True)
class BothLedgers:
    """One document on the twin and in SQL; every step is taken on both."""

    database: Database
    rows: DocumentRows = field(default_factory=lambda: DocumentRows().with_lease("q", Lease(1, running=True)))

    def accept(self, text: str | None) -> None:
        service = ingestion(self.database)
        before = self.rows.text
        if text is None:
            if self.rows.generation and before is not None:
                service.delete(CORPUS, ["d"])
                self.rows = self.rows.accept(None, queue="q")
            return
        if service.put(CORPUS, [source("d", text)]).accepted:
            self.rows = self.rows.accept(text, queue="q")

    def load(self) -> DocumentWork | None:
        with self.database.read() as connection:
            works = load_work(connection, connection.execute(select(DOCUMENTS.c.pk)).scalars().all())
        if not works:
            return None
        (work,) = works
        assert (work.generation, work.text) == (self.rows.generation, self.rows.text)
        assert work.served == self.rows.manifest
        assert work.older_points == self.rows.older_points(work.generation)
        return work

    def intend(self, work: DocumentWork, points: Sequence[str]) -> None:
        with self.database.write() as connection:
            unmoved = record_intents(connection, {work: points})
        self.rows, mine = PublicationRules().record_intents(self.rows, work, points, queue="q", fence=1)
        assert unmoved == ({work.pk} if mine else set())

    def settle(self, published: PublishedDocument) -> None:
        with self.database.write() as connection:
            store_published(connection, self._corpus_pk(connection), [published], filled_from=0)
        self.rows = PublicationRules().store_published(self.rows, published, queue="q", fence=1)

    def assert_equal(self) -> None:
        with self.database.read() as connection:
            head = connection.execute(select(DOCUMENTS)).one_or_none()
            manifests = list(connection.execute(select(ManifestRow.passages)).scalars())
            intents = connection.execute(select(PointIntentRow.generation, PointIntentRow.points)).all()
            ledger = frozenset(connection.execute(select(LedgerRow.spec_id)).scalars())
        if head is None:
            assert self.rows.generation == 0
            return
        counted = (head.generation, head.published_generation, head.served_generation)
        assert counted == (self.rows.generation, self.rows.published, self.rows.served)
        assert tuple(span for packed in manifests for span in unpack_spans(packed)) == self.rows.manifest
        assert {(each.generation, frozenset(unpack_points(each.points))) for each in intents} == self.rows.intents
        assert ledger == self.rows.ledger

    def _corpus_pk(self, connection: Connection) -> int:
        return int(connection.execute(select(CorpusRow.pk)).scalar_one())


@pytest.mark.parametrize("seed", range(6))
def test_the_fence_models_twin_of_sql_does_what_sql_does(database: Database, seed: int) -> None:
    dice, both = random.Random(seed), BothLedgers(database)
    works: list[DocumentWork] = []
    for _ in range(50):
        match dice.randrange(4):
            case 0:
                both.accept(dice.choice(["A\nB", "B\nC", "A", None]))
            case 1 if (work := both.load()) is not None:
                works.append(work)
            case 2 if works:
                work = dice.choice(works)
                both.intend(work, [str(UUID(int=number)) for number in (work.generation, 100 + len(work.text or ""))])
            case 3 if works:
                both.settle(published(dice.choice(works)))
        both.assert_equal()


def published(work: DocumentWork) -> PublishedDocument:
    """What a publisher would report of a piece of work."""
    passages = LineSplitter().split(work.text or "")
    spans = tuple(PassageSpan(passage.key, passage.start, passage.end) for passage in passages)
    entries = (LedgerEntry(SPEC_ID, tuple(1 for _ in passages)),) if work.text is not None else ()
    return PublishedDocument(work, spans, entries)


def test_a_slice_is_bounded_by_number_and_by_bytes(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d0", "x" * 60), source("d1", "x" * 60), source("d2", "x" * 60)])
    change_rows(database, DOCUMENTS, DOCUMENTS.c.pk > 0, bucket=3)
    corpus_pk = document(database, "d0").corpus_pk
    with database.read() as connection:

        def found(limit: int, max_bytes: int) -> int:
            key = {"bucket": 3, "queue": "interactive"}
            return len(find_behind(connection, corpus_pk, limit=limit, max_bytes=max_bytes, **key))  # type: ignore[arg-type]  # mixed values

        assert (found(9, 1000), found(2, 1000), found(9, 130), found(9, 1)) == (3, 2, 2, 1)


def test_a_document_that_is_put_off_waits_and_its_job_with_it(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    later = database.clock_ms() + 60_000
    change_rows(database, DOCUMENTS, DOCUMENTS.c.id == "d", available_at=later)
    worker = InMemoryWorker(database)
    assert worker.run_all() == ["succeeded"]
    (waiting,) = jobs(database, state="pending")
    assert abs(waiting.available_at - later) < 5_000
    row = document(database, "d")
    with database.read() as connection:
        assert next_due_at(connection, row.corpus_pk, bucket=row.bucket, queue=row.queue) == later


def test_specs_added_during_a_job_are_filled_for_its_later_slices_too(database: Database) -> None:
    ingestion(database).put(CORPUS, sources(3))
    change_rows(database, DOCUMENTS, DOCUMENTS.c.pk > 0, bucket=jobs(database)[0].bucket)
    worker = InMemoryWorker(database, limits=JobLimits(slice_documents=1))
    runner = EventJobRunner(worker.resources, taken(database, jobs(database)[0].pk), limits=worker.limits)
    added = load_spec("cl100k_base/plain")
    with database.write() as connection:
        ensure_spec(connection, added)
        corpus_pk = connection.execute(
            update(CorpusRow).values(spec_set_version=CorpusRow.spec_set_version + 1).returning(CorpusRow.pk)
        ).scalar_one()
        building = {"corpus_pk": corpus_pk, "spec_id": added.spec_id, "status": "building", "caching_enabled": True}
        connection.execute(insert(CorpusSpecRow).values(**building, created_at=now_ms()))
    assert runner.run() == "succeeded"
    with database.read() as connection:
        filled = connection.execute(select(LedgerRow.spec_id)).scalars().all()
    assert sorted(filled) == [added.spec_id] * 3 + [SPEC_ID] * 3
    assert len([name for name in worker.store.names() if added.fingerprint in name]) == 1  # all have one text


class FailingEmbedder(NamedEmbedder):
    """Refuses or dies over texts that name it."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        if any("poison" in text for text in texts):
            raise self._error
        return super().embed_passages(texts)


def all_in_one_bucket(database: Database) -> int:
    """Put every document into the bucket of the first job, and leave only that job."""
    (first, *others) = jobs(database)
    change_rows(database, DOCUMENTS, DOCUMENTS.c.pk > 0, bucket=first.bucket)
    with database.write() as connection:
        connection.execute(JOBS.delete().where(JOBS.c.pk.in_([each.pk for each in others])))
    return int(first.pk)


def test_a_document_that_is_refused_dies_alone_and_the_run_ends_partial(database: Database) -> None:
    run_id = ingestion(database).put(CORPUS, [*sources(2), source("bad", "poison")]).run_id
    all_in_one_bucket(database)
    worker = InMemoryWorker(database, embedder=FailingEmbedder(InvalidInput("too odd")))
    assert worker.run_all() == ["partial"]
    assert (document(database, "d0").state, document(database, "bad").state) == ("served", "dead")
    run = report(database, run_id)
    assert (run.state, run.totals["done"], run.totals["dead"]) == ("partial", 2, 1)
    with database.read() as connection:
        (error,) = list_errors(connection, run_id)
    assert (error.document_id, error.stage, error.error) == ("bad", "embed", "too odd")


def test_a_service_that_does_not_answer_costs_no_document_an_attempt(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("bad", "poison")])
    worker = InMemoryWorker(database, embedder=FailingEmbedder(Unavailable("gone", service="embedder")))
    (pending,) = jobs(database)
    assert worker.run(pending.pk) == "unavailable"
    row = job(database, pending.pk)
    assert (row.state, row.attempts, row.deliveries, document(database, "bad").attempts) == ("pending", 0, 0, 0)
    assert row.available_at > row.claimed_at


def test_an_unexpected_error_in_a_group_is_pinned_on_its_document(database: Database) -> None:
    ingestion(database).put(CORPUS, [*sources(2), source("bad", "poison")])
    pk = all_in_one_bucket(database)
    worker = InMemoryWorker(
        database, embedder=FailingEmbedder(ZeroDivisionError("a bug")), limits=JobLimits(max_attempts=1)
    )
    assert worker.run(pk) == "failed"
    change_rows(database, JOBS, JOBS.c.pk == pk, available_at=now_ms())
    assert worker.run_all() == ["partial"]
    assert [document(database, name).state for name in ("d0", "d1", "bad")] == ["served", "served", "dead"]


def test_a_document_that_kills_its_worker_again_and_again_is_given_up_and_the_others_are_served(
    database: Database,
) -> None:
    run_id = ingestion(database).put(CORPUS, [*sources(2), source("bad", "poison")]).run_id
    pk, bad = all_in_one_bucket(database), document(database, "bad").pk
    worker = InMemoryWorker(database, limits=JobLimits(max_deaths=2))
    for _ in range(2):
        dying = taken(database, pk)
        leave_breadcrumb(database, dying, bad)
        expire_lease(database, pk)
        assert rescue_expired(database) == [pk]
        change_rows(database, DOCUMENTS, DOCUMENTS.c.pk == bad, available_at=now_ms() + 60_000)
        outcome = worker.run(pk)
        pk = max(row.pk for row in jobs(database))
        change_rows(database, JOBS, JOBS.c.state == "pending", available_at=now_ms())
    assert outcome == "partial"
    assert [document(database, name).state for name in ("d0", "d1", "bad")] == ["served", "served", "dead"]
    with database.read() as connection:
        (error,) = list_errors(connection, run_id)
    assert (error.stage, error.attempts) == ("worker", 2)


class PanicException(BaseException):
    """What a panic in Rust becomes: no `Exception`."""


def breaks_at_poison(error: BaseException) -> Callable[[TokenSpec, Sequence[str]], EncodedPassages]:
    def encode(spec: TokenSpec, texts: Sequence[str]) -> EncodedPassages:
        if any("poison" in text for text in texts):
            raise error
        return encode_passages(spec, texts)

    return encode


def test_a_panic_at_a_document_costs_that_document_alone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = ingestion(database).put(CORPUS, [*sources(2), source("bad", "poison")]).run_id
    pk = all_in_one_bucket(database)
    monkeypatch.setattr(publishing, "encode_passages", breaks_at_poison(PanicException("poison")))
    assert InMemoryWorker(database).run(pk) == "partial"
    assert [document(database, name).state for name in ("d0", "d1", "bad")] == ["served", "served", "dead"]
    with database.read() as connection:
        (error,) = list_errors(connection, run_id)
    assert (error.document_id, error.stage, error.error) == ("bad", "tokenize", "a library panicked")


@pytest.mark.parametrize("error", [PanicException("poison"), OutOfTime(50)])
def test_what_is_no_exception_in_a_group_is_pinned_on_its_document(database: Database, error: BaseException) -> None:
    ingestion(database).put(CORPUS, [*sources(2), source("bad", "poison")])
    pk = all_in_one_bucket(database)
    worker = InMemoryWorker(database, embedder=FailingEmbedder(error), limits=JobLimits(max_attempts=1))
    assert worker.run(pk) == "failed"
    change_rows(database, JOBS, JOBS.c.pk == pk, available_at=now_ms())
    assert worker.run_all() == ["partial"]
    assert [document(database, name).state for name in ("d0", "d1", "bad")] == ["served", "served", "dead"]


def test_time_that_is_over_is_no_refusal_of_the_document_in_hand(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingestion(database).put(CORPUS, [source("bad", "poison")])
    monkeypatch.setattr(publishing, "encode_passages", breaks_at_poison(OutOfTime(50)))
    assert InMemoryWorker(database).run_all() == ["succeeded"]
    row = document(database, "bad")
    assert (row.state, row.attempts, row.last_error) == ("pending", 1, "it took longer than 50 s")


def test_the_end_of_the_process_is_no_failure_of_a_document(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("bad", "poison")])
    (pending,) = jobs(database)
    with pytest.raises(KeyboardInterrupt):
        InMemoryWorker(database, embedder=FailingEmbedder(KeyboardInterrupt())).run(pending.pk)
    assert (document(database, "bad").attempts, job(database, pending.pk).state) == (0, "running")


def test_a_document_that_failed_before_comes_alone_after_the_others_and_with_a_breadcrumb(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("bad", "poison"), *sources(2)])
    pk = all_in_one_bucket(database)
    change_rows(database, DOCUMENTS, DOCUMENTS.c.id == "bad", attempts=1)
    with pytest.raises(KeyboardInterrupt):
        InMemoryWorker(database, embedder=FailingEmbedder(KeyboardInterrupt())).run(pk)
    assert [document(database, name).state for name in ("d0", "d1", "bad")] == ["served", "served", "pending"]
    assert job(database, pk).breadcrumb == document(database, "bad").pk


def test_a_worker_that_lost_its_job_says_so_and_changes_nothing(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    (pending,) = jobs(database)
    worker = InMemoryWorker(database)

    class Usurped(NamedEmbedder):
        def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
            expire_lease(database, pending.pk)
            rescue_expired(database)
            return super().embed_passages(texts)

    late = replace(worker, embedder=Usurped())
    assert late.run(pending.pk) == "fenced"
    assert worker.store.names() == []
    assert document(database, "d").state == "pending"
    assert worker.run_all() == ["succeeded"]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("the embedder answered 401", service="embedder"), "unavailable"),
        (ConfigurationError("no such model"), "failed"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_what_is_no_documents_fault_kills_none(database: Database, error: Exception, outcome: str, count: int) -> None:
    run_id = ingestion(database).put(CORPUS, sources(count, "poison")).run_id
    pk = all_in_one_bucket(database)
    worker = InMemoryWorker(database, limits=JobLimits(max_attempts=1))
    for _ in range(3):
        change_rows(database, JOBS, JOBS.c.pk == pk, available_at=0)
        assert replace(worker, embedder=FailingEmbedder(error)).run(pk) == outcome
    assert [document(database, f"d{number}").state for number in range(count)] == ["pending"] * count
    change_rows(database, JOBS, JOBS.c.pk == pk, available_at=0)
    assert worker.run_all() == ["succeeded"]
    assert report(database, run_id).state == "succeeded"
