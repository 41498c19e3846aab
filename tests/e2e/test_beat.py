"""Beat: needs no file, and says in SQL that it ticks, which is how others know."""

from pathlib import Path

import pytest

from pipeline.database import Database
from pipeline.jobs.presence import announce_worker, beat_name, list_beats, list_workers
from pipeline.jobs.store import QUEUES, worker_slots
from tests.support.polling import eventually
from tests.support.processes import Process, forefill_command
from tests.support.stack import Stack
from workers.app import BEAT_TICK_S


def test_beat_is_known_by_its_ticks_and_writes_no_file(sqlite_stack: Stack, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    beat = _start_beat(sqlite_stack, folder)
    assert list(folder.iterdir()) == []
    assert beat.terminate(timeout_s=10) == 0
    assert _ticked(sqlite_stack) == {}


@pytest.mark.long
def test_a_paused_beat_is_seen_not_to_tick_and_again_when_it_goes_on(sqlite_stack: Stack, tmp_path: Path) -> None:
    beat = _start_beat(sqlite_stack, tmp_path)
    name = beat_name(beat.pid)
    beat.pause()
    eventually(lambda: _ticked(sqlite_stack)[name] > 2 * BEAT_TICK_S, timeout_s=30, describe="a silent beat")
    beat.resume()
    eventually(lambda: _ticked(sqlite_stack)[name] < BEAT_TICK_S, timeout_s=20, describe="a beat that ticks again")


def _start_beat(stack: Stack, folder: Path) -> Process:
    beat = stack.processes.start([*forefill_command(), "beat"], name="beat", env=stack.environment, cwd=folder)
    beat.wait_until(lambda: beat_name(beat.pid) in _ticked(stack), timeout_s=60)
    return beat


def test_a_beat_is_no_worker(database: Database) -> None:
    announce_worker(database, beat_name(), queues=[], concurrency=0)
    with database.read() as connection:
        assert list_beats(connection)[beat_name()] < 30
        assert list_workers(connection) == []
        assert not any(worker_slots(connection, alive_ms=30_000).get(queue) for queue in QUEUES)


def _ticked(stack: Stack) -> dict[str, float]:
    with stack.database.read() as connection:
        return list_beats(connection)
