"""Which queues are wedged: due jobs, live workers, and nothing claimed for a minute."""

import pytest
from sqlalchemy import true

from pipeline.cli.stack.wedge import WEDGED_S, find_wedged_queues
from pipeline.database import Database, now_ms
from pipeline.jobs.claims import JOBS
from pipeline.jobs.presence import announce_worker
from tests.support.write_path import CORPUS, add_job, change_rows, ingestion, jobs, source

OLD_MS = round(WEDGED_S * 1000) + 5000


@pytest.fixture
def waiting(database: Database) -> Database:
    """A job that has been due for more than a minute, and a worker that should take it."""
    ingestion(database).put(CORPUS, [source("d")])
    change_rows(database, JOBS, true(), available_at=now_ms() - OLD_MS, published_at=now_ms())
    announce_worker(database, "w", queues=["interactive"], concurrency=1)
    return database


def test_a_queue_whose_jobs_nobody_claims_is_wedged(waiting: Database) -> None:
    assert find_wedged_queues(waiting) == {"interactive"}


def test_a_queue_of_whose_jobs_nobody_was_told_is_not(waiting: Database) -> None:
    change_rows(waiting, JOBS, true(), published_at=None)
    assert find_wedged_queues(waiting) == set()


def test_a_queue_without_workers_is_not(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    change_rows(database, JOBS, true(), available_at=now_ms() - OLD_MS)
    assert find_wedged_queues(database) == set()


def test_a_job_that_has_not_waited_long_is_no_sign(waiting: Database) -> None:
    change_rows(waiting, JOBS, true(), available_at=now_ms() - 1000)
    assert find_wedged_queues(waiting) == set()


def test_an_old_job_that_is_put_off_is_no_sign(waiting: Database) -> None:
    put_off = {"created_at": now_ms() - 2 * OLD_MS, "available_at": now_ms() + 60_000, "last_error": "no"}
    change_rows(waiting, JOBS, true(), **put_off)
    assert find_wedged_queues(waiting) == set()


def test_a_queue_with_a_recent_claim_is_not_wedged(waiting: Database) -> None:
    change_rows(waiting, JOBS, true(), claimed_at=now_ms() - 1000)
    assert find_wedged_queues(waiting) == set()


def test_a_queue_with_a_running_job_is_not_wedged(waiting: Database) -> None:
    running = {"state": "running", "worker": "w", "lease_until": now_ms() + 60_000, "claimed_at": now_ms() - OLD_MS}
    add_job(waiting, jobs(waiting)[0].corpus_pk, bucket=100, **running)
    assert find_wedged_queues(waiting) == set()
