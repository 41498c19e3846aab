"""Runs: what they count, who ends them, and what two workers or a silent client do to them."""

from functools import partial

import pytest

from pipeline.database import Database, now_ms
from pipeline.documents.publication import DocumentFailure, load_work, store_failures
from pipeline.errors import Conflict, NotFound
from pipeline.jobs.run_reports import get_run, list_errors, list_items, list_runs
from pipeline.jobs.runs import bury_items, finish_items, seal_abandoned, settle
from pipeline.jobs.tables import RunRow
from tests.support.write_path import (
    CORPUS,
    InMemoryWorker,
    at_once,
    change_rows,
    document,
    ingestion,
    report,
    source,
    sources,
)

RUNS = RunRow.metadata.tables["runs"]
ROUNDS = 15


def finish_document(database: Database, document_id: str) -> set[str]:
    """Finish one document's items as the last step of its publication does, then end what can end."""
    pk = document(database, document_id).pk
    with database.write() as connection:
        runs = finish_items(connection, {pk: 7})
    settle(database, runs)
    return runs


def die(database: Database, document_id: str) -> None:
    """Give a document up."""
    pk = document(database, document_id).pk
    with database.write() as connection:
        works = load_work(connection, [pk])
        failure = DocumentFailure(works[0], "tokenize", "it cannot be", final=True)
        assert store_failures(connection, [failure], max_attempts=3, delays_ms={}) == {pk}
        bury_items(connection, pk, stage="tokenize", error="it cannot be", attempts=1)


def test_a_run_ends_with_its_last_document_and_counts_its_tokens(database: Database) -> None:
    run_id = ingestion(database).put(CORPUS, sources(2)).run_id
    finish_document(database, "d0")
    half = report(database, run_id)
    assert (half.state, half.totals["done"], half.totals["pending"], half.finished_at) == ("running", 1, 1, None)
    finish_document(database, "d1")
    whole = report(database, run_id)
    assert (whole.state, whole.totals["done"], whole.tokens) == ("succeeded", 2, 14)
    assert whole.finished_at is not None


def test_workers_that_finish_the_last_two_documents_at_once_end_the_run(database: Database) -> None:
    service = ingestion(database)
    for number in range(ROUNDS):
        run_id = service.put(CORPUS, [source(f"a{number}"), source(f"b{number}")]).run_id
        at_once(*[partial(finish_document, database, f"{letter}{number}") for letter in "ab"])
        settle(database)
        assert report(database, run_id).state == "succeeded"


def test_documents_are_the_sum_of_the_outcomes(database: Database) -> None:
    service = ingestion(database)
    run_id = service.put(CORPUS, sources(4)).run_id
    service.put(CORPUS, [source("d0", "newer")])
    die(database, "d1")
    finish_document(database, "d2")
    totals = dict(report(database, run_id).totals)
    assert totals.pop("documents") == 4
    assert totals == {"pending": 1, "done": 1, "unchanged": 0, "superseded": 1, "dead": 1, "cancelled": 0}


def test_a_run_with_a_dead_document_ends_partial_and_names_it(database: Database) -> None:
    run_id = ingestion(database).put(CORPUS, sources(2)).run_id
    die(database, "d0")
    finish_document(database, "d1")
    assert report(database, run_id).state == "partial"
    with database.read() as connection:
        (error,) = list_errors(connection, run_id)
        assert (error.document_id, error.stage, error.error, error.attempts) == ("d0", "tokenize", "it cannot be", 1)
        assert list_errors(connection, run_id, after="d0") == []


def test_what_has_ended_does_not_end_again(database: Database) -> None:
    run_id = ingestion(database).put(CORPUS, sources(1)).run_id
    finish_document(database, "d0")
    before = report(database, run_id)
    assert settle(database) == 0
    assert finish_document(database, "d0") == set()
    assert report(database, run_id) == before


def test_an_open_run_waits_for_its_seal(database: Database) -> None:
    service = ingestion(database)
    run_id = service.open(CORPUS, kind="ingest")
    service.add(run_id, CORPUS, sources(1), queue="bulk")
    finish_document(database, "d0")
    settle(database)
    assert report(database, run_id).state == "running"
    service.seal(run_id)
    assert report(database, run_id).state == "succeeded"


def test_an_open_run_whose_client_fell_silent_is_sealed_and_what_it_brought_goes_on(database: Database) -> None:
    service = ingestion(database)
    run_id = service.open(CORPUS, kind="ingest")
    service.add(run_id, CORPUS, sources(1), queue="bulk")
    assert seal_abandoned(database) == 0
    change_rows(database, RUNS, RUNS.c.id == run_id, open_until=now_ms() - 1)
    assert seal_abandoned(database) == 1
    with pytest.raises(Conflict, match="silent"):
        service.add(run_id, CORPUS, [source("late")], queue="bulk")
    assert InMemoryWorker(database).run_all() == ["succeeded"]
    settle(database)
    run = report(database, run_id)
    assert (run.state, run.totals["documents"]) == ("succeeded", 1)
    assert run.error is not None


def test_between_a_late_client_and_its_sealing_exactly_one_wins(database: Database) -> None:
    service = ingestion(database)
    for number in range(ROUNDS):
        run_id = service.open(CORPUS, kind="ingest")
        change_rows(database, RUNS, RUNS.c.id == run_id, open_until=now_ms() - 1)
        add = partial(service.add, run_id, CORPUS, [source(f"d{number}")], queue="bulk")
        sealed, added = at_once(partial(seal_abandoned, database), add)
        assert (sealed, isinstance(added, Conflict)) in ((1, True), (0, False)), added
        assert report(database, run_id).totals["documents"] == 1 - int(str(sealed))
        service.seal(run_id)


def test_a_document_that_comes_twice_in_one_run_is_one_item(database: Database) -> None:
    service = ingestion(database)
    run_id = service.open(CORPUS, kind="ingest")
    service.add(run_id, CORPUS, [source("d", "first")], queue="bulk")
    service.add(run_id, CORPUS, [source("d", "second")], queue="bulk")
    service.add(run_id, CORPUS, [source("d", "second")], queue="bulk")
    service.seal(run_id)
    totals = report(database, run_id).totals
    assert (totals["documents"], totals["pending"]) == (1, 1)
    InMemoryWorker(database).run_all()
    settle(database)
    assert report(database, run_id).totals["done"] == 1


def test_sealing_again_changes_nothing(database: Database) -> None:
    service = ingestion(database)
    run_id = service.open(CORPUS, kind="ingest")
    service.seal(run_id)
    before = report(database, run_id)
    service.seal(run_id)
    assert report(database, run_id) == before
    assert before.state == "succeeded"


def test_runs_are_listed_newest_first_in_pages(database: Database) -> None:
    service = ingestion(database)
    ids = [service.put(CORPUS, [source("d", f"text {number}")]).run_id for number in range(3)]
    with database.read() as connection:
        assert [run.id for run in list_runs(connection, limit=2)] == [ids[2], ids[1]]
        assert [run.id for run in list_runs(connection, before=ids[1])] == [ids[0]]
        assert list_runs(connection, corpora=["other"]) == []
        assert [item.document_id for item in list_items(connection, ids[2], limit=5)] == ["d"]
        with pytest.raises(NotFound):
            get_run(connection, "no-such-run")
