"""Rows whose time is over go, in small steps; what documents, schedules and coverage rest on stays."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from pipeline.database import Database
from pipeline.documents.corpora import change_corpus, get_corpus
from pipeline.documents.tables import CorpusRow, DocumentRow, IdempotencyKeyRow
from pipeline.errors import Conflict, NotFound
from pipeline.jobs.range_runs import RangeOptions, settle_ranges
from pipeline.jobs.run_reports import list_errors
from pipeline.jobs.runs import bury_items, settle
from pipeline.jobs.tables import RunItemRow, RunRow, RunTotalsRow
from pipeline.services import retention
from pipeline.services.corpus_removal import drop_corpus, purge_dropped
from pipeline.services.ingestion import Idempotency, IngestionService
from pipeline.services.range_runs import retry, start_range_run
from pipeline.services.retention import Pruned, prune
from pipeline.services.schedules import evaluate_schedules, keep_schedule
from tests.support.write_path import (
    CORPUS,
    DOCUMENTS,
    InMemoryWorker,
    change_rows,
    document,
    ingestion,
    report,
    source,
    sources,
)

RUNS = RunRow.metadata.tables["runs"]
DAY_MS = 24 * 3_600_000


def count(database: Database, table: Any) -> int:
    with database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def prune_after(database: Database, days: float, **options: Any) -> Pruned:
    """Prune as after so many days."""
    return prune(database, retention_days=30, now=database.clock_ms() + round(days * DAY_MS), **options)


@pytest.fixture
def served(database: Database) -> tuple[IngestionService, InMemoryWorker]:
    """A corpus of three served documents."""
    service, worker = ingestion(database), InMemoryWorker(database)
    service.put(CORPUS, sources(3))
    worker.run_all()
    return service, worker


def test_ended_runs_go_after_their_time_and_documents_stay(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    service, _ = served
    waiting = service.put(CORPUS, [source("d0", "changed")]).run_id
    assert prune_after(database, 29) == Pruned()
    assert prune_after(database, 31) == Pruned(runs=1, items=3)
    assert report(database, waiting).totals["pending"] == 1, "it has not ended"
    assert count(database, DocumentRow) == 3
    assert prune_after(database, 10_000) == Pruned()


def test_failed_and_partial_runs_are_kept_three_times_as_long(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    run_id = served[0].put(CORPUS, [source("d0", "a bad one")]).run_id
    change_rows(database, DOCUMENTS, DOCUMENTS.c.id == "d0", state="dead", last_error="why")
    with database.write() as connection:
        bury_items(connection, document(database, "d0").pk, stage="split", error="why", attempts=1)
    settle(database, [run_id])
    assert prune_after(database, 89).runs == 1
    assert report(database, run_id).state == "partial"
    assert prune_after(database, 91).runs == 1
    with pytest.raises(NotFound):
        report(database, run_id)


@pytest.mark.usefixtures("served")
def test_a_large_run_goes_in_steps_and_never_says_less_than_it_was(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_ITEMS", 2)
    with database.read() as connection:
        run_id = connection.execute(select(RunRow.id)).scalar_one()
    before = report(database, run_id)
    assert before.totals["done"] == 3
    assert prune_after(database, 31, budget_s=0) == Pruned(items=2)
    assert count(database, RunItemRow) == 1
    assert replace(report(database, run_id), eta_s=before.eta_s) == before
    assert prune_after(database, 31) == Pruned(runs=1, items=1)
    assert count(database, RunTotalsRow) == 0


def test_a_document_that_comes_back_after_its_row_was_pruned_begins_above_every_older_generation(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    """Its tombstone in the index has the old generation: a new one below it could never be written."""
    service, worker = served
    for text in ("second", "third"):
        service.put(CORPUS, [source("d0", text)])
        worker.run_all()
    service.delete(CORPUS, ["d0"])
    assert prune_after(database, 31).documents == 0, "its deletion is not published yet"
    worker.run_all()
    deleted = document(database, "d0")
    assert (deleted.generation, deleted.published_generation) == (4, 4)
    assert prune_after(database, 29).documents == 0
    assert prune_after(database, 31).documents == 1
    assert count(database, DocumentRow) == 2
    service.put(CORPUS, [source("d0"), source("new")])
    worker.run_all()
    assert (document(database, "d0").generation, document(database, "new").generation) == (5, 5)
    collection = f"{CORPUS}.{deleted.corpus_pk}"
    found = {point.document_id: point.generation for point in worker.index.living(collection).values()}
    assert found["d0"] == 5, "search finds it: the index held tombstones of generation 4 at the same points"


def test_a_deleted_document_stays_while_a_run_names_it(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    service, worker = served
    run_id = service.delete(CORPUS, ["d0"]).run_id
    worker.run_all()
    change_rows(database, RUNS, RUNS.c.id == run_id, finished_at=RUNS.c.finished_at + 10 * DAY_MS)
    assert prune_after(database, 31).documents == 0
    assert prune_after(database, 41).documents == 1


def test_the_run_that_says_how_far_a_schedule_was_followed_stays(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    with database.write() as connection:
        corpus = get_corpus(connection, CORPUS)
        keep_schedule(connection, change_corpus(connection, corpus, schedule="0 0 1 1 *"))
    schedules = RunRow.metadata.tables["schedules"]
    change_rows(database, schedules, schedules.c.pk > 0, created_at=1)
    (nightly,) = evaluate_schedules(database)
    served[1].run_all()
    settle_ranges(database)
    assert report(database, nightly).state == "succeeded"
    prune_after(database, 200)
    assert evaluate_schedules(database) == [], "it would be made up for again"
    assert report(database, nightly).state == "succeeded"


def test_the_verification_that_vouches_for_a_corpus_stays(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    verified = []
    for options in (RangeOptions(repair=True), RangeOptions(repair=True), RangeOptions()):
        verified.append(start_range_run(database, CORPUS, kind="verify", options=options) or "")
        served[1].run_all()
        settle_ranges(database)
    assert prune_after(database, 200).runs == 3
    assert report(database, verified[1]).state == "succeeded"


def test_old_idempotency_keys_go_and_a_key_is_new_again_after_its_life(
    database: Database, served: tuple[IngestionService, InMemoryWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_KEYS", 2)
    for number in range(5):
        key = Idempotency("", str(number), b"body")
        served[0].put(CORPUS, [source("d0", f"text {number}")], idempotency=key)
    assert prune_after(database, 0.9).keys == 0
    keys = IdempotencyKeyRow.metadata.tables["idempotency_keys"]
    change_rows(database, keys, keys.c.key == "0", created_at=keys.c.created_at - 2 * DAY_MS)
    served[0].put(CORPUS, [source("d0", "other")], idempotency=Idempotency("", "0", b"another body"))
    with pytest.raises(Conflict):
        served[0].put(CORPUS, [source("d0", "other")], idempotency=Idempotency("", "1", b"another body"))
    assert prune_after(database, timedelta(days=1.1) / timedelta(days=1)).keys == 5


@pytest.mark.parametrize("kind", ["ingest", "verify"])
def test_runs_of_a_dropped_corpus_keep_its_name_and_their_totals(
    database: Database, served: tuple[IngestionService, InMemoryWorker], kind: str
) -> None:
    _, worker = served
    if kind == "ingest":
        with database.read() as connection:
            run_id = connection.execute(select(RunRow.id)).scalar_one()
    else:
        run_id = start_range_run(database, CORPUS, kind="verify") or ""
        worker.run_all()
        settle_ranges(database)
    before = report(database, run_id)
    drop_corpus(database, CORPUS)
    during = report(database, run_id)
    worker.run_all()
    between = report(database, run_id)
    assert purge_dropped(database) == 1
    assert purge_dropped(database) == 0
    after = report(database, run_id)
    for later in (during, between, after):
        assert (later.corpus, later.totals, later.tokens) == (CORPUS, before.totals, before.tokens)
    assert before.totals["documents"] == 3
    with pytest.raises(Conflict):
        retry(database, run_id)
    with database.read() as connection:
        assert list_errors(connection, run_id) == []
    assert prune_after(database, 31).runs >= 1
    assert prune_after(database, 31) == Pruned()
    assert count(database, CorpusRow) == 0


def test_an_unfinished_run_of_a_dropped_corpus_keeps_what_it_had_done(
    database: Database, served: tuple[IngestionService, InMemoryWorker]
) -> None:
    service, worker = served
    run_id = service.put(CORPUS, [source("d0", "changed"), source("d1")]).run_id
    verification = start_range_run(database, CORPUS, kind="verify") or ""
    drop_corpus(database, CORPUS)
    worker.run_all()
    purge_dropped(database)
    totals = report(database, run_id).totals
    assert (totals["unchanged"], totals["cancelled"], totals["documents"]) == (1, 1, 2)
    totals = report(database, verification).totals
    assert (totals["cancelled"], totals["documents"]) == (3, 3)
