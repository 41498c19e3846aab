"""Nights with real processes: however many dispatchers and beats look at a schedule, it makes one run."""

from pathlib import Path

import pytest

from pipeline.database import now_ms
from pipeline.jobs.run_reports import RunReport, list_runs
from pipeline.jobs.tables import ScheduleRow
from pipeline.services.nominal_times import latest_nominal
from tests.e2e.conftest import SQLITE_WHEN_THERE_IS_TIME
from tests.support import sample
from tests.support.polling import eventually
from tests.support.stack import Stack
from workers.app import EVALUATE_SCHEDULES, create_app

CORPUS = "docs"
CRON, ZONE = "0 2 * * *", "Europe/Berlin"
DAY_MS = 86_400_000


@SQLITE_WHEN_THERE_IS_TIME
def test_three_dispatchers_and_two_beats_make_one_run_of_a_night(stack: Stack, tmp_path: Path) -> None:
    stack.start_worker()
    first = stack.start_dispatcher()
    _ingest(stack, tmp_path)
    first.kill()
    _set_schedule_days_ago(stack, days=3)
    beats = [stack.processes.start_forefill("beat", env=stack.environment) for _ in range(2)]
    app = create_app(stack.settings)
    for _beat in range(6):
        app.send_task(EVALUATE_SCHEDULES, queue="maintenance", ignore_result=True)
    dispatchers = [stack.start_dispatcher() for _ in range(3)]
    (run,) = eventually(lambda: _nights(stack), timeout_s=30, describe="a nightly run")
    ended = stack.wait_for_run(run.id)
    assert (ended.state, ended.totals["documents"], ended.totals["unchanged"]) == ("succeeded", 100, 100)
    assert ended.nominal_at == latest_nominal(CRON, ZONE, until_ms=stack.database.clock_ms())
    dispatchers[0].kill()
    app.send_task(EVALUATE_SCHEDULES, queue="maintenance", ignore_result=True)
    with stack.broker.client() as broker:
        eventually(lambda: not broker.llen("maintenance"), describe="a worker taking the last message")
    assert [night.id for night in _nights(stack)] == [run.id]
    assert all(process.is_running for process in (*beats, *dispatchers[1:]))
    app.close()


@pytest.mark.long
def test_beat_alone_makes_the_run_of_a_night(sqlite_stack: Stack, tmp_path: Path) -> None:
    stack = sqlite_stack
    stack.start_worker()
    dispatcher = stack.start_dispatcher()
    _ingest(stack, tmp_path)
    dispatcher.kill()
    _set_schedule_days_ago(stack, days=3)
    stack.processes.start_forefill("beat", env=stack.environment)
    (run,) = eventually(lambda: _nights(stack), timeout_s=60, describe="a nightly run")
    stack.start_dispatcher()
    assert stack.wait_for_run(run.id).state == "succeeded"


def _ingest(stack: Stack, folder: Path) -> None:
    lines = sample.DOCUMENTS.read_text(encoding="utf-8").splitlines()[:100]
    path = folder / "some.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    stack.forefill("ingest", str(path), "--corpus", CORPUS, "--wait", "--json")


def _set_schedule_days_ago(stack: Stack, *, days: int) -> None:
    made = stack.forefill("corpus", "set", CORPUS, "--schedule", CRON, "--timezone", ZONE, "--json")
    assert made["next_run_at"]
    with stack.database.write() as connection:
        table = ScheduleRow.metadata.tables["schedules"]
        connection.execute(table.update().values(created_at=now_ms() - days * DAY_MS))


def _nights(stack: Stack) -> list[RunReport]:
    with stack.database.read() as connection:
        return [run for run in list_runs(connection) if run.kind == "retokenize"]
