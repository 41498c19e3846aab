"""What the schema itself refuses: every rule of the tables, in both directions."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from pipeline.database import Database, now_ms
from pipeline.jobs.claims import JOBS
from pipeline.jobs.tables import RunItemRow, RunRow
from tests.support.write_path import CORPUS, DOCUMENTS, InMemoryWorker, ingestion, jobs, report, source

RUNS = RunRow.metadata.tables["runs"]
ITEMS = RunItemRow.metadata.tables["run_items"]
_LEASED = {"worker": "w", "lease_until": 1}


@dataclass(frozen=True, slots=True)
class Case:
    """A change of a legal row, and the rule that refuses it; no rule means that it is legal."""

    rule: str
    values: dict[str, Any] = field(default_factory=dict)


def _change(database: Database, table: Any, values: dict[str, Any]) -> str:
    """Change every row of a table; return the refusing database's words, or nothing."""
    try:
        with database.write() as connection:
            connection.execute(update(table).values(values))
    except IntegrityError as error:
        return str(error.orig)
    return ""


def _assert_rule(database: Database, table: Any, case: Case) -> None:
    refused = _change(database, table, case.values)
    assert (case.rule in refused) if case.rule else not refused, refused


@pytest.mark.parametrize(
    "case",
    [
        Case("ck_jobs_running_iff_leased", {"state": "running", "worker": "w"}),
        Case("ck_jobs_running_iff_leased", {"lease_until": 1}),
        Case("ck_jobs_running_iff_owned", {"state": "running", "lease_until": 1}),
        Case("ck_jobs_running_iff_owned", {"worker": "w"}),
        Case("", {"state": "running", **_LEASED}),
        Case("ck_jobs_ended_iff_finished", {"state": "succeeded"}),
        Case("ck_jobs_ended_iff_finished", {"finished_at": 1}),
        Case("ck_jobs_ended_iff_finished", {"state": "running", "finished_at": 1, **_LEASED}),
        Case("", {"state": "partial", "finished_at": 1}),
        Case("ck_jobs_dead_has_cause", {"state": "dead", "finished_at": 1}),
        Case("", {"state": "dead", "finished_at": 1, "last_error": "why"}),
        Case("ck_jobs_event_iff_bucket", {"bucket": None}),
        Case("ck_jobs_event_iff_bucket", {"kind": "drop"}),
        Case("ck_jobs_range", {"kind": "gc", "bucket": None}),
        Case("ck_jobs_queue_known", {"queue": "slow"}),
        Case("ck_jobs_state_known", {"state": "ready", "finished_at": 1}),
    ],
    ids=lambda case: f"{case.rule or 'legal'} {case.values}",
)
def test_jobs_that_contradict_themselves_are_refused(database: Database, case: Case) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    _assert_rule(database, JOBS, case)


def test_an_event_job_belongs_to_no_run(database: Database) -> None:
    run_id = ingestion(database).put(CORPUS, [source("d")]).run_id
    _assert_rule(database, JOBS, Case("ck_jobs_event_without_run", {"run_id": run_id}))
    a_range = {"kind": "gc", "bucket": None, "run_id": run_id, "range_start": 0, "range_end": 9}
    _assert_rule(database, JOBS, Case("ck_jobs_kind_known", {**a_range, "kind": "sweep"}))
    _assert_rule(database, JOBS, Case("", a_range))


@pytest.mark.parametrize(
    "case",
    [
        Case("ck_documents_served_iff_head_served", {"state": "stale"}),
        Case("ck_documents_served_iff_head_served", {"generation": 2}),
        Case("ck_documents_served_iff_head_served", {"state": "dead", "last_error": "why"}),
        Case("ck_documents_pending_serves_nothing", {"state": "pending", "generation": 2}),
        Case("", {"state": "stale", "generation": 2}),
        Case("ck_documents_stale_serves_older", {"state": "stale", "generation": 2, "served_generation": 0}),
        Case("ck_documents_generations_ordered", {"generation": 0, "published_generation": 0, "served_generation": 0}),
        Case("ck_documents_generations_ordered", {"published_generation": 2}),
        Case("ck_documents_generations_ordered", {"generation": 2, "served_generation": 2}),
        Case("ck_documents_deleted_iff_no_content", {"content_hash": None}),
        Case("ck_documents_deleted_iff_no_content", {"state": "deleted", "generation": 2}),
        Case("", {"state": "deleted", "content_hash": None, "generation": 2}),
        Case("ck_documents_dead_has_cause", {"state": "dead", "generation": 2}),
        Case("", {"state": "dead", "generation": 2, "last_error": "why"}),
        Case("ck_documents_queue_known", {"queue": "maintenance"}),
        Case("ck_documents_state_known", {"state": "gone", "generation": 2}),
    ],
    ids=lambda case: f"{case.rule or 'legal'} {case.values}",
)
def test_documents_that_contradict_themselves_are_refused(database: Database, case: Case) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    InMemoryWorker(database).run_all()
    _assert_rule(database, DOCUMENTS, case)


@pytest.mark.parametrize(
    "case",
    [
        Case("ck_runs_ended_iff_finished", {"state": "succeeded"}),
        Case("ck_runs_ended_iff_finished", {"finished_at": 1}),
        Case("", {"state": "partial", "finished_at": 1}),
        Case("ck_runs_failed_has_cause", {"state": "failed", "finished_at": 1}),
        Case("ck_runs_open_iff_not_sealed", {"sealed": False}),
        Case("ck_runs_open_iff_not_sealed", {"open_until": 1}),
        Case("", {"sealed": False, "open_until": 1}),
        Case("ck_runs_kind_known", {"kind": "sweep"}),
        Case("ck_runs_state_known", {"state": "done"}),
    ],
    ids=lambda case: f"{case.rule or 'legal'} {case.values}",
)
def test_runs_that_contradict_themselves_are_refused(database: Database, case: Case) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    _assert_rule(database, RUNS, case)


@pytest.mark.parametrize(
    "case",
    [
        Case("ck_run_items_dead_iff_error", {"outcome": "dead"}),
        Case("ck_run_items_dead_iff_error", {"error": "why"}),
        Case("", {"outcome": "dead", "error": "why"}),
        Case("ck_run_items_outcome_known", {"outcome": "failed"}),
    ],
    ids=lambda case: f"{case.rule or 'legal'} {case.values}",
)
def test_items_that_contradict_themselves_are_refused(database: Database, case: Case) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    _assert_rule(database, ITEMS, case)


@pytest.mark.parametrize("state", ["pending", "running"])
def test_a_key_has_one_pending_and_one_running_event_job(database: Database, state: str) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    (first,) = jobs(database)
    owned = _LEASED if state == "running" else {}
    assert not _change(database, JOBS, {"state": state, **owned})
    same_key = {name: first._mapping[name] for name in ("kind", "queue", "corpus_pk", "bucket")}
    second = insert(JOBS).values(
        state=state, fence=0, deliveries=0, attempts=0, created_at=now_ms(), available_at=now_ms(), **owned, **same_key
    )
    with pytest.raises(IntegrityError), database.write() as connection:
        connection.execute(second)
    ended = second.values(state="succeeded", finished_at=1, worker=None, lease_until=None)
    with database.write() as connection:
        connection.execute(ended)
        connection.execute(ended)


def test_rows_of_what_does_not_exist_are_refused(database: Database) -> None:
    run_id = ingestion(database).put(CORPUS, [source("d")]).run_id
    assert _change(database, DOCUMENTS, {"corpus_pk": 999})
    assert _change(database, ITEMS, {"document_pk": 999})
    assert report(database, run_id).corpus == CORPUS
