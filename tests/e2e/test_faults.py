"""What is killed in the middle of a run costs time and nothing else: the result is what it would have been."""

import os
import signal
from collections.abc import Callable

import pytest

from pipeline.documents.readers import SourceDocument
from pipeline.errors import Unavailable
from pipeline.factory import open_ingestion
from tests.e2e.conftest import SQLITE_WHEN_THERE_IS_TIME
from tests.support import sample
from tests.support.oracle import Published, check_published
from tests.support.polling import eventually
from tests.support.processes import Process
from tests.support.stack import Stack

CORPUS = "docs"
SLOW = {"FOREFILL_WORKER_CONCURRENCY": "1"}


def test_a_killed_prefork_child(sqlite_stack: Stack) -> None:
    _check_result_survives(
        sqlite_stack, lambda stack, _worker, _dispatcher: os.kill(_running_child(stack), signal.SIGKILL)
    )


@SQLITE_WHEN_THERE_IS_TIME
def test_a_killed_worker(stack: Stack) -> None:
    def kill(stack: Stack, worker: Process, _dispatcher: Process) -> None:
        worker.kill()
        eventually(lambda: not worker.children(), describe="children follow their worker")
        stack.start_worker(name="second")

    _check_result_survives(stack, kill)


def test_a_killed_broker_that_comes_back_empty(sqlite_stack: Stack) -> None:
    def kill(stack: Stack, _worker: Process, _dispatcher: Process) -> None:
        stack.broker.kill()
        stack.broker.start()

    _check_result_survives(sqlite_stack, kill)


def test_a_killed_qdrant_owner(sqlite_stack: Stack) -> None:
    def kill(stack: Stack, _worker: Process, _dispatcher: Process) -> None:
        stack.owner.kill()
        stack.start_owner()

    _check_result_survives(sqlite_stack, kill)


def test_a_killed_dispatcher(sqlite_stack: Stack) -> None:
    def kill(stack: Stack, _worker: Process, dispatcher: Process) -> None:
        dispatcher.kill()
        stack.start_dispatcher()

    _check_result_survives(sqlite_stack, kill)


def test_a_killed_cache_that_comes_back_with_its_file(sqlite_stack: Stack) -> None:
    def kill(stack: Stack, _worker: Process, _dispatcher: Process) -> None:
        stack.cache.kill()
        stack.cache.start()

    _check_result_survives(sqlite_stack, kill)


@pytest.mark.long
@pytest.mark.parametrize("turn", range(5))
def test_everything_killed_in_turn(stack: Stack, turn: int) -> None:
    def kill(stack: Stack, worker: Process, dispatcher: Process) -> None:
        victims = [worker.kill, dispatcher.kill, stack.broker.kill, stack.owner.kill]
        for victim in victims[turn % 4 :] + victims[: turn % 4]:
            victim()
        stack.broker.start()
        stack.start_owner()
        stack.start_dispatcher()
        stack.start_worker(name="second")

    _check_result_survives(stack, kill)


def _check_result_survives(stack: Stack, disturb: Callable[[Stack, Process, Process], None]) -> None:
    """Ingest, disturb after the first documents are served, and wait for the undisturbed result."""
    documents = {document["id"]: document["text"] for document in sample.multiplied(2)}
    worker = stack.start_worker()
    dispatcher = stack.start_dispatcher()
    run_id = _ingest(stack, documents)
    eventually(lambda: _count(stack, "outcome = 'done'") >= 50, timeout_s=60, describe="the first documents")
    disturb(stack, worker, dispatcher)
    assert _count(stack, "outcome = 'pending'") > 0, "the fault came too late to test anything"
    report = stack.wait_for_run(run_id, timeout_s=120)
    assert (report.state, report.totals["done"]) == ("succeeded", len(documents))
    check_published(stack, CORPUS, {name: Published(text, 1) for name, text in documents.items()})


def _ingest(stack: Stack, documents: dict[str, str]) -> str:
    ingestion = open_ingestion(stack.settings, stack.database, nudge=lambda: None)
    run_id = ingestion.open(CORPUS, kind="ingest")
    sources = [SourceDocument(id=name, text=text, metadata={}) for name, text in documents.items()]
    for start in range(0, len(sources), 500):
        ingestion.add(run_id, CORPUS, sources[start : start + 500], queue="bulk")
    ingestion.seal(run_id)
    return run_id


def _count(stack: Stack, condition: str) -> int:
    with stack.database.read() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM run_items WHERE {condition}").scalar_one())


def _running_child(stack: Stack) -> int:
    """Wait for a running job and return the process id of the child that holds it."""

    def holder() -> int:
        with stack.database.read() as connection:
            name = connection.exec_driver_sql("SELECT worker FROM jobs WHERE state = 'running'").scalar()
        return int(str(name).rpartition(":")[2]) if name else 0

    return eventually(holder, timeout_s=30, describe="a running job")


def _stop_between_transactions(stack: Stack, child: int) -> None:
    """Stop a child where it does not hold SQLite's one lock for writers, which would stop everybody."""

    def is_stopped() -> bool:
        os.kill(child, signal.SIGSTOP)
        try:
            with stack.database.write():
                return True
        except Unavailable:
            os.kill(child, signal.SIGCONT)
            return False

    eventually(is_stopped, timeout_s=30, describe="a moment between two transactions")


def test_a_paused_worker_that_wakes_after_its_lease_changes_nothing(sqlite_stack: Stack) -> None:
    stack = sqlite_stack
    documents = {document["id"]: document["text"] for document in sample.documents()[:300]}
    sleeper = stack.start_worker(name="sleeper")
    dispatcher = stack.start_dispatcher()
    first = _ingest(stack, documents)
    _stop_between_transactions(stack, _running_child(stack))
    sleeper.pause_all()
    assert dispatcher.is_running
    stack.start_worker(name="second")
    stack.wait_for_run(first, timeout_s=60)
    changed = {name: f"Second edition. {text}" for name, text in documents.items()}
    second = _ingest(stack, changed)
    stack.wait_for_run(second, timeout_s=60)
    expected = {name: Published(text, 2) for name, text in changed.items()}
    check_published(stack, CORPUS, expected)
    sleeper.resume_all()
    sleeper.wait_for_output(r'"outcome": "fenced"', timeout_s=30)
    check_published(stack, CORPUS, expected)
