"""Schedules in SQL: what settings leave there, and how many runs whoever evaluates them makes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import select

from pipeline.database import Database, now_ms
from pipeline.documents.tables import CorpusRow
from pipeline.jobs.range_runs import settle_ranges
from pipeline.jobs.run_reports import RunReport, list_runs
from pipeline.jobs.tables import RunRow, ScheduleRow
from pipeline.services import schedules
from pipeline.services.corpus_removal import drop_corpus, purge_dropped
from pipeline.services.corpus_settings import NO_SCHEDULE, CorpusChange, put_corpus
from pipeline.services.nominal_times import latest_nominal
from pipeline.services.range_runs import start_range_run
from pipeline.services.schedules import evaluate_schedules
from tests.support.write_path import CORPUS, InMemoryWorker, at_once, change_rows, ingestion, sources

SCHEDULES = ScheduleRow.metadata.tables["schedules"]
CORPORA = CorpusRow.metadata.tables["corpora"]
DAY_MS = 86_400_000
DAILY = CorpusChange(schedule="0 2 * * *", timezone="Europe/Berlin")


def change(database: Database, settings: CorpusChange, name: str = CORPUS) -> None:
    put_corpus(database, name, settings, defaults=ingestion(database)._defaults)


def rows(database: Database) -> list[Any]:
    with database.read() as connection:
        return list(connection.execute(select(SCHEDULES)))


def runs(database: Database) -> list[RunReport]:
    with database.read() as connection:
        return [run for run in list_runs(connection) if run.kind == "retokenize"]


def days_pass(database: Database, days: float) -> None:
    """Make every schedule as old as if days had passed since it was set."""
    change_rows(database, SCHEDULES, SCHEDULES.c.pk > 0, created_at=now_ms() - round(days * DAY_MS))


def latest(database: Database) -> int | None:
    return latest_nominal("0 2 * * *", "Europe/Berlin", until_ms=database.clock_ms())


@pytest.fixture
def nightly(database: Database) -> Database:
    """A corpus of served documents with a schedule since two days ago."""
    ingestion(database).put(CORPUS, sources(3))
    InMemoryWorker(database).run_all()
    change(database, DAILY)
    days_pass(database, 2)
    return database


def test_a_schedule_is_kept_in_step_with_the_settings(database: Database) -> None:
    change(database, DAILY)
    (row,) = rows(database)
    assert (row.kind, row.cron, row.timezone) == ("retokenize", "0 2 * * *", "Europe/Berlin")
    change(database, CorpusChange(timezone="Asia/Tokyo"))
    assert rows(database)[0].timezone == "Asia/Tokyo"
    change(database, CorpusChange(schedule="5 4 * * 0"))
    (again,) = rows(database)
    assert (again.pk, again.cron) == (row.pk, "5 4 * * 0")
    change(database, CorpusChange(schedule=NO_SCHEDULE))
    assert rows(database) == []


def test_a_changed_schedule_counts_from_now_and_a_repeated_one_as_before(nightly: Database) -> None:
    change(nightly, DAILY)
    assert rows(nightly)[0].created_at < nightly.clock_ms() - DAY_MS
    change(nightly, CorpusChange(timezone="Asia/Tokyo"))
    assert rows(nightly)[0].created_at > nightly.clock_ms() - DAY_MS
    assert evaluate_schedules(nightly) == []


def test_two_who_change_a_corpus_at_once_leave_settings_and_schedule_equal(database: Database) -> None:
    change(database, DAILY)
    for turn in range(5):
        at_once(
            partial(change, database, CorpusChange(schedule=f"{turn} 1 * * *")),
            partial(change, database, CorpusChange(timezone=["UTC", "Asia/Tokyo"][turn % 2])),
            partial(change, database, CorpusChange()),
        )
        with database.read() as connection:
            corpus = connection.execute(select(CORPORA.c.schedule, CORPORA.c.timezone)).one()
        (row,) = rows(database)
        assert (row.cron, row.timezone) == (corpus.schedule, corpus.timezone)


def test_nothing_is_due_right_after_a_schedule_was_set(database: Database) -> None:
    change(database, DAILY)
    assert evaluate_schedules(database) == []


def test_after_downtime_only_the_latest_time_is_made_up_for(nightly: Database) -> None:
    days_pass(nightly, 40)
    (run_id,) = evaluate_schedules(nightly)
    (run,) = runs(nightly)
    assert (run.id, run.nominal_at) == (run_id, latest(nightly))
    InMemoryWorker(nightly).run_all()
    settle_ranges(nightly)
    assert evaluate_schedules(nightly) == []
    (run,) = runs(nightly)
    assert (run.state, run.totals["documents"]) == ("succeeded", 3)


def test_many_who_look_at_once_make_one_run(nightly: Database) -> None:
    found = at_once(*[partial(evaluate_schedules, nightly)] * 5)
    assert sorted(len(each) for each in found if isinstance(each, list)) == [0, 0, 0, 0, 1]
    assert len(runs(nightly)) == 1


def test_the_next_night_has_a_run_of_its_own(nightly: Database) -> None:
    evaluate_schedules(nightly)
    InMemoryWorker(nightly).run_all()
    settle_ranges(nightly)
    table = RunRow.metadata.tables["runs"]
    change_rows(nightly, table, table.c.kind == "retokenize", nominal_at=table.c.nominal_at - DAY_MS)
    assert len(evaluate_schedules(nightly)) == 1


def test_a_night_waits_for_the_one_before(nightly: Database) -> None:
    evaluate_schedules(nightly)
    table = RunRow.metadata.tables["runs"]
    change_rows(nightly, table, table.c.kind == "retokenize", nominal_at=table.c.nominal_at - DAY_MS)
    assert evaluate_schedules(nightly) == []
    InMemoryWorker(nightly).run_all()
    settle_ranges(nightly)
    assert len(evaluate_schedules(nightly)) == 1


def test_a_dropped_corpus_has_no_nights(nightly: Database) -> None:
    drop_corpus(nightly, CORPUS)
    assert evaluate_schedules(nightly) == []
    InMemoryWorker(nightly).run_all()
    purge_dropped(nightly)
    assert rows(nightly) == []


def test_a_schedule_nobody_can_follow_keeps_no_other_waiting(nightly: Database) -> None:
    change(nightly, DAILY, name="other")
    days_pass(nightly, 2)
    change_rows(nightly, SCHEDULES, SCHEDULES.c.pk == rows(nightly)[0].pk, timezone="Mars/Olympus")
    assert len(evaluate_schedules(nightly)) == 1


@pytest.mark.parametrize(
    "vanish",
    [
        lambda database: drop_corpus(database, CORPUS),
        lambda database: change(database, CorpusChange(schedule=NO_SCHEDULE)),
    ],
)
def test_what_vanishes_while_it_is_evaluated_makes_no_run(
    nightly: Database, monkeypatch: pytest.MonkeyPatch, vanish: Callable[[Database], None]
) -> None:
    begin = start_range_run

    def vanishing(database: Database, *arguments: Any, **options: Any) -> str | None:
        vanish(database)
        return begin(database, *arguments, **options)

    monkeypatch.setattr(schedules, "start_range_run", vanishing)
    assert evaluate_schedules(nightly) == []
    assert runs(nightly) == []
