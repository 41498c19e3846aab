"""Accepting changes: what is answered is in SQL with the work it causes, whoever else writes at the same time."""

from functools import partial
from typing import cast

import pytest
from sqlalchemy import delete, select

from pipeline.database import Database, now_ms
from pipeline.documents.corpora import create_corpus, get_corpus, hold_corpus, list_corpora
from pipeline.documents.publication import find_behind
from pipeline.documents.splitting import Splitter
from pipeline.documents.tables import ContentRow, CorpusSpecRow, IdempotencyKeyRow
from pipeline.errors import Conflict, InvalidInput, NotFound
from pipeline.jobs.claims import JOBS, finish, rescue_expired
from pipeline.jobs.runs import open_run
from pipeline.jobs.states import JobState
from pipeline.jobs.store import requeue_forgotten
from pipeline.services import ingestion as ingestion_module
from pipeline.services.corpus_removal import drop_corpus, purge_dropped
from pipeline.services.ingestion import Idempotency, IngestAnswer
from pipeline.services.specs import ensure_spec
from pipeline.tokenizers import load_spec
from pipeline.tokenizers.tables import SpecRow
from tests.support.write_path import (
    CORPUS,
    DOCUMENTS,
    InMemoryWorker,
    Waiter,
    at_once,
    change_rows,
    document,
    expire_lease,
    ingestion,
    jobs,
    report,
    source,
    sources,
    take,
)

ROUNDS = 25


def test_a_put_leaves_a_head_an_item_and_a_job_together(database: Database) -> None:
    answer = ingestion(database).put(CORPUS, [source("d", "text")])
    row = document(database, "d")
    (job,) = jobs(database)
    assert (answer.accepted, answer.unchanged) == (1, 0)
    assert (row.state, row.generation, row.served_generation) == ("pending", 1, 0)
    assert (job.state, job.bucket, job.queue) == ("pending", row.bucket, "interactive")
    assert report(database, answer.run_id).totals["pending"] == 1


def test_events_of_one_bucket_coalesce_in_one_job(database: Database) -> None:
    service = ingestion(database)
    for number in range(5):
        service.put(CORPUS, [source("d", f"text {number}")])
    assert len(jobs(database)) == 1
    assert document(database, "d").generation == 5


def test_more_than_64_documents_go_by_the_bulk_queue(database: Database) -> None:
    ingestion(database).put(CORPUS, sources(65))
    assert {job.queue for job in jobs(database)} == {"bulk"}


def test_equal_content_is_unchanged_and_queues_nothing(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    service.put(CORPUS, [source("d")])
    worker.run_all()
    before = document(database, "d")
    answer = service.put(CORPUS, [source("d")])
    assert (answer.accepted, answer.unchanged) == (0, 1)
    assert report(database, answer.run_id).state == "succeeded"
    assert document(database, "d") == before
    assert jobs(database, state="pending") == []


def test_equal_content_of_a_head_that_is_not_served_yet_waits_for_it(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    first = service.put(CORPUS, [source("d")])
    second = service.put(CORPUS, [source("d")])
    assert second.unchanged == 1
    assert report(database, second.run_id).state == "pending"
    worker.run_all()
    assert [report(database, answer.run_id).totals["done"] for answer in (first, second)] == [1, 1]


def test_a_newer_change_supersedes_what_waits_in_every_run(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    runs = [service.put(CORPUS, [source("d", f"text {number}")]).run_id for number in range(3)]
    worker.run_all()
    totals = [report(database, run).totals for run in runs]
    assert [(each["superseded"], each["done"]) for each in totals] == [(1, 0), (1, 0), (0, 1)]


def test_a_dead_document_is_revived_by_the_same_content(database: Database) -> None:
    service = ingestion(database)
    service.put(CORPUS, [source("d")])
    change_rows(database, DOCUMENTS, DOCUMENTS.c.id == "d", state="dead", last_error="why", attempts=3)
    assert service.put(CORPUS, [source("d")]).accepted == 1
    row = document(database, "d")
    assert (row.state, row.generation, row.attempts, row.last_error) == ("pending", 2, 0, None)


def test_a_deleted_document_is_made_again_with_a_newer_generation(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    service.put(CORPUS, [source("d")])
    worker.run_all()
    service.delete(CORPUS, ["d"])
    assert document(database, "d").state == "deleted"
    assert service.put(CORPUS, [source("d")]).accepted == 1
    row = document(database, "d")
    assert (row.state, row.generation, row.served_generation) == ("stale", 3, 1)
    worker.run_all()
    assert document(database, "d").state == "served"


def test_a_published_deletion_leaves_no_text_and_serves_nothing(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    service.put(CORPUS, [source("d")])
    worker.run_all()
    answer = service.delete(CORPUS, ["d", "d", "unknown"])
    assert (answer.accepted, answer.unknown) == (1, 1)
    worker.run_all()
    row = document(database, "d")
    assert (row.state, row.published_generation, row.served_generation) == ("deleted", 2, 0)
    with database.read() as connection:
        assert connection.execute(select(ContentRow.document_pk)).all() == []
    assert worker.index.count(_collection(database)) == 0
    assert service.delete(CORPUS, ["d"]).unknown == 1


def test_while_claims_race_with_requests_no_document_is_left_without_a_job(database: Database) -> None:
    service = ingestion(database)
    service.put(CORPUS, [source("d", "first")])
    for number in range(ROUNDS):
        (pending,) = jobs(database, state="pending")

        def work(pk: int = pending.pk) -> list[int]:
            job = take(database, pk)
            assert job is not None
            with database.read() as connection:
                seen = find_behind(
                    connection, job.corpus_pk, bucket=job.bucket or 0, queue=job.queue, limit=9, max_bytes=9
                )
                generation = connection.execute(select(DOCUMENTS.c.generation)).scalar_one() if seen else 0
            with database.write() as connection:
                finish(connection, job, state=JobState.SUCCEEDED)
            return [generation]

        seen, _ = at_once(work, partial(service.put, CORPUS, [source("d", f"text {number}")]))
        head = document(database, "d").generation
        assert seen == [head] or jobs(database, state="pending"), "the change has neither been seen nor a job"
        service.put(CORPUS, [source("d", f"and {number}")])


def test_requests_workers_and_rescues_together_leave_every_head_served(database: Database) -> None:
    service = ingestion(database)
    service.put(CORPUS, sources(6, "first"))
    workers = [InMemoryWorker(database, name="w1")]
    workers.append(InMemoryWorker(database, name="w2", index=workers[0].index, store=workers[0].store))
    for number in range(6):

        def change(n: int = number) -> None:
            service.put(CORPUS, sources(6, f"text {n}"))
            service.delete(CORPUS, [f"d{n}"])

        def rescue() -> None:
            for running in jobs(database, state="running"):
                expire_lease(database, running.pk)
            rescue_expired(database)

        results = at_once(change, workers[0].run_all, workers[1].run_all, rescue)
        assert not [error for error in results if isinstance(error, Exception)]
    workers[0].run_all()
    with database.read() as connection:
        states = dict(connection.execute(select(DOCUMENTS.c.id, DOCUMENTS.c.state)).all())
    assert states == {f"d{n}": "deleted" if n == 5 else "served" for n in range(6)}
    assert workers[0].index.count(_collection(database)) == 5


def test_equal_specs_and_corpora_that_are_recorded_at_once_are_recorded_once(database: Database) -> None:
    spec, splitter = load_spec("o200k_base/plain"), Splitter().identity

    def record(name: str) -> None:
        with database.write() as connection:
            ensure_spec(connection, spec)
            create_corpus(connection, name, spec_id=spec.spec_id, splitter=splitter, embedder="e")

    for number in range(ROUNDS):
        assert at_once(*[partial(record, f"c{number}")] * 4) == [None] * 4
        with database.write() as connection:
            connection.execute(delete(CorpusSpecRow))
            connection.execute(delete(SpecRow))
    with database.read() as connection:
        assert len(list_corpora(connection)) == ROUNDS


def test_first_writes_to_one_corpus_name_make_one_corpus(database: Database) -> None:
    service = ingestion(database)
    answers = at_once(*[partial(service.put, "new", [source(f"d{number}")]) for number in range(4)])
    assert all(isinstance(answer, IngestAnswer) for answer in answers)
    with database.read() as connection:
        assert [corpus.name for corpus in list_corpora(connection)] == ["new"]
        assert connection.execute(select(DOCUMENTS.c.generation)).scalars().all() == [1, 1, 1, 1]


def test_batches_over_the_same_documents_wait_for_each_other_and_do_not_deadlock(database: Database) -> None:
    service, documents = ingestion(database), sources(40)
    for number in range(ROUNDS):
        texts = [source(each.id, f"text {number}") for each in documents]
        others = [source(each.id, f"other {number}") for each in reversed(documents)]
        answers = at_once(partial(service.put, CORPUS, texts), partial(service.put, CORPUS, others))
        assert all(isinstance(answer, IngestAnswer) for answer in answers), answers
        assert document(database, "d0").generation == 2 * number + 2


def test_an_idempotency_key_answers_a_repeated_request_with_its_first_answer(database: Database) -> None:
    service = ingestion(database)
    same = Idempotency(principal="", key="k", body=b"one")
    first = service.put(CORPUS, [source("d", "one")], idempotency=same)
    service.put(CORPUS, [source("d", "two")])
    assert service.put(CORPUS, [source("d", "one")], idempotency=same) == first
    assert document(database, "d").generation == 2
    with pytest.raises(Conflict, match="'k'"):
        service.put(CORPUS, [source("d", "three")], idempotency=Idempotency(principal="", key="k", body=b"three"))


def test_of_equal_requests_that_race_under_one_key_one_is_done_and_all_get_its_answer(database: Database) -> None:
    service = ingestion(database)
    service.put(CORPUS, [source("other")])
    for number in range(ROUNDS):
        key = Idempotency(principal="", key=f"k{number}", body=b"body")
        answers = at_once(*[partial(service.put, CORPUS, [source("d", f"text {number}")], idempotency=key)] * 3)
        assert len({cast("IngestAnswer", answer).run_id for answer in answers}) == 1
        assert document(database, "d").generation == number + 1


def test_a_key_of_a_request_that_failed_is_free(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    service, key = ingestion(database), Idempotency(principal="", key="k", body=b"body")

    def fail(*_arguments: object, **_options: object) -> None:
        raise InvalidInput("refused")

    with monkeypatch.context() as patch:
        patch.setattr(ingestion_module, "request_event_jobs", fail)
        with pytest.raises(InvalidInput):
            service.put(CORPUS, [source("d")], idempotency=key)
    with database.read() as connection:
        assert connection.execute(select(DOCUMENTS.c.pk)).all() == []
    assert service.put(CORPUS, [source("d")], idempotency=key).accepted == 1


def test_a_key_is_forgotten_after_24_hours(database: Database) -> None:
    service, key = ingestion(database), Idempotency(principal="", key="k", body=b"body")
    first = service.put(CORPUS, [source("d")], idempotency=key)
    keys = IdempotencyKeyRow.metadata.tables["idempotency_keys"]
    change_rows(database, keys, keys.c.key == "k", created_at=now_ms() - 25 * 3_600_000)
    assert service.put(CORPUS, [source("d")], idempotency=key).run_id != first.run_id


def test_a_document_without_a_job_gets_one(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    assert requeue_forgotten(database) == 0
    with database.write() as connection:
        connection.execute(JOBS.delete())
    assert requeue_forgotten(database) == 1
    (job,) = jobs(database)
    assert job.bucket == document(database, "d").bucket


def test_a_dropped_corpus_frees_its_name_and_loses_its_work(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    run_id = service.put(CORPUS, [source("d")]).run_id
    drop_corpus(database, CORPUS)
    assert requeue_forgotten(database) == 0, "work for a dropped corpus"
    with database.read() as connection, pytest.raises(NotFound):
        get_corpus(connection, CORPUS)
    assert report(database, run_id).state == "cancelled"
    assert {job.state for job in jobs(database, kind="event")} == {"cancelled"}
    again = service.put(CORPUS, [source("d")])
    assert worker.run_all() == ["succeeded", "succeeded"]
    assert purge_dropped(database) == 1
    assert report(database, again.run_id).totals["done"] == 1


def test_a_request_that_holds_a_corpus_is_waited_for_by_its_drop_and_leaves_nothing(database: Database) -> None:
    service, worker = ingestion(database), InMemoryWorker(database)
    service.put(CORPUS, [source("d")])
    with database.write() as connection:
        corpus = hold_corpus(connection, CORPUS)
        run_id = open_run(connection, corpus.pk, kind="ingest", sealed=True)
        drop = Waiter(database, lambda: drop_corpus(database, CORPUS))
        changes = ingestion_module._changes(corpus, [source("late")])
        ingestion_module._accept(connection, corpus, run_id, changes, queue="bulk")
    assert drop.result() is None
    assert {job.state for job in jobs(database, kind="event")} == {"cancelled"}
    assert worker.run_all() == ["succeeded"]
    assert purge_dropped(database) == 1


def test_a_request_that_began_while_its_corpus_was_dropped_finds_none(database: Database) -> None:
    service = ingestion(database)
    run_id = service.open(CORPUS, kind="ingest")
    results = at_once(
        lambda: drop_corpus(database, CORPUS),
        lambda: drop_corpus(database, CORPUS),
        lambda: service.add(run_id, CORPUS, [source("d")], queue="bulk"),
    )
    assert sum(isinstance(result, NotFound) for result in results[:2]) == 1
    assert InMemoryWorker(database).run_all() == ["succeeded"]
    assert purge_dropped(database) == 1


def _collection(database: Database) -> str:
    with database.read() as connection:
        return get_corpus(connection, CORPUS).collection
