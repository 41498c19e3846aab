"""Claiming, holding and giving back jobs, with real connections that race."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Connection

from pipeline.database import Database, now_ms
from pipeline.errors import StaleFence
from pipeline.jobs.claims import (
    JOBS,
    check_fence,
    finish,
    give_back,
    heartbeat,
    leave_breadcrumb,
    record_progress,
    release,
    rescue_expired,
)
from pipeline.jobs.heartbeat import Heartbeat
from pipeline.jobs.states import JobState
from pipeline.jobs.store import choose_publishable, mark_published, request_event_jobs
from tests.support.polling import eventually
from tests.support.write_path import (
    CORPUS,
    Waiter,
    add_job,
    at_once,
    change_rows,
    expire_lease,
    ingestion,
    job,
    jobs,
    source,
    take,
    taken,
)

ROUNDS = 20


@pytest.fixture
def pending(database: Database) -> int:
    """The pending job of one accepted document."""
    ingestion(database).put(CORPUS, [source("d")])
    (row,) = jobs(database)
    return int(row.pk)


def test_a_claim_takes_a_lease_and_a_new_fence_and_counts_the_delivery(database: Database, pending: int) -> None:
    claimed = taken(database, pending, worker="w", lease_s=30)
    row = job(database, pending)
    assert (row.state, row.worker, row.fence, row.deliveries) == ("running", "w", claimed.fence, 1)
    assert 29_000 < row.lease_until - database.clock_ms() <= 30_000


def test_of_many_claims_with_one_message_one_wins(database: Database, pending: int) -> None:
    corpus_pk = job(database, pending).corpus_pk
    for number in range(ROUNDS):
        pk = add_job(database, corpus_pk, bucket=100 + number)
        claims = at_once(*[partial(take, database, pk, worker=f"w{place}") for place in range(4)])
        assert sum(claimed is not None for claimed in claims) == 1
        assert job(database, pk).deliveries == 1


def test_a_job_that_is_not_due_running_or_finished_is_not_to_be_had(database: Database, pending: int) -> None:
    change_rows(database, JOBS, JOBS.c.pk == pending, available_at=now_ms() + 60_000)
    assert take(database, pending) is None
    change_rows(database, JOBS, JOBS.c.pk == pending, available_at=now_ms())
    claimed = taken(database, pending)
    assert take(database, pending, worker="other") is None
    with database.write() as connection:
        finish(connection, claimed, state=JobState.SUCCEEDED)
    assert take(database, pending) is None


def test_a_message_that_came_too_early_is_used_up_and_the_job_published_again(database: Database, pending: int) -> None:
    with database.write() as connection:
        mark_published(connection, [pending])
    change_rows(database, JOBS, JOBS.c.pk == pending, available_at=now_ms() + 60_000)
    assert take(database, pending) is None
    assert job(database, pending).published_at is None


def test_a_redelivered_message_takes_over_at_once(database: Database, pending: int) -> None:
    first = taken(database, pending, delivery_id="message-1")
    assert take(database, pending, delivery_id="message-1") is None
    assert take(database, pending, delivery_id="message-2", redelivered=True) is None
    second = taken(database, pending, delivery_id="message-1", redelivered=True)
    assert (second.fence, second.deliveries, second.is_suspicious) == (first.fence + 1, 2, True)
    with pytest.raises(StaleFence):
        heartbeat(database, first)


def test_late_worker_cannot_write_anything_once_its_job_was_rescued(database: Database, pending: int) -> None:
    late = taken(database, pending)
    expire_lease(database, pending)
    assert rescue_expired(database) == [pending]
    owner = taken(database, pending, worker="w2")
    with pytest.raises(StaleFence):
        heartbeat(database, late)
    with pytest.raises(StaleFence):
        leave_breadcrumb(database, late, 1)
    writes: list[Callable[[Connection], None]] = [
        lambda connection: check_fence(connection, late),
        lambda connection: record_progress(connection, late, cursor=7),
        lambda connection: finish(connection, late, state=JobState.SUCCEEDED),
        lambda connection: give_back(connection, late, error="slow", delay_s=0, suspects_work=True),
    ]
    for write in writes:
        with pytest.raises(StaleFence), database.write() as connection:
            write(connection)
    row = job(database, pending)
    assert (row.state, row.fence, row.worker, row.cursor) == ("running", owner.fence, "w2", None)


def test_what_a_late_worker_wrote_beside_its_fence_is_rolled_back(database: Database, pending: int) -> None:
    late = taken(database, pending)
    expire_lease(database, pending)
    rescue_expired(database)

    def write() -> None:
        with database.write() as connection:
            request_event_jobs(connection, late.corpus_pk, queue="bulk", buckets=[99])
            check_fence(connection, late)

    with pytest.raises(StaleFence):
        write()
    assert jobs(database, queue="bulk") == []


def test_a_holder_past_its_lease_that_nobody_rescued_may_go_on(database: Database, pending: int) -> None:
    slow = taken(database, pending)
    expire_lease(database, pending)
    heartbeat(database, slow)
    assert rescue_expired(database) == []
    with database.write() as connection:
        finish(connection, slow, state=JobState.SUCCEEDED)
    assert job(database, pending).state == "succeeded"


def test_between_a_late_heartbeat_and_the_rescue_exactly_one_wins(database: Database, pending: int) -> None:
    corpus_pk = job(database, pending).corpus_pk
    for number in range(ROUNDS):
        pk = add_job(database, corpus_pk, bucket=100 + number)
        holder = taken(database, pk)
        expire_lease(database, pk)
        rescued, beat = at_once(partial(rescue_expired, database), partial(heartbeat, database, holder))
        assert (rescued, type(beat)) in (([pk], StaleFence), ([], type(None)))
        assert job(database, pk).state == ("pending" if rescued else "running")


def test_a_rescue_comes_without_back_off_and_keeps_the_count_of_deaths(database: Database, pending: int) -> None:
    leave_breadcrumb(database, taken(database, pending), 5)
    expire_lease(database, pending)
    rescue_expired(database)
    again = taken(database, pending)
    assert (again.deliveries, again.breadcrumb, again.is_suspicious) == (2, 5, True)


def test_a_rescue_folds_into_the_pending_job_of_its_key(database: Database, pending: int) -> None:
    dying = taken(database, pending)
    leave_breadcrumb(database, dying, 5)
    ingestion(database).put(CORPUS, [source("d", "newer text")])
    (heir,) = jobs(database, state="pending")
    expire_lease(database, pending)
    assert rescue_expired(database) == [pending]
    assert job(database, pending).state == "cancelled"
    taken_over = taken(database, heir.pk)
    assert (taken_over.breadcrumb, taken_over.deliveries) == (5, 2)


def test_a_rescue_that_meets_an_uncommitted_request_folds_into_its_job(database: Database, pending: int) -> None:
    dying = taken(database, pending)
    expire_lease(database, pending)
    with database.write() as connection:
        request_event_jobs(connection, dying.corpus_pk, queue="interactive", buckets=[dying.bucket or 0])
        rescue = Waiter(database, lambda: rescue_expired(database))
    assert rescue.result() == [pending]
    assert job(database, pending).state == "cancelled"
    assert len(jobs(database, state="pending")) == 1


def test_rescues_and_requests_over_the_same_keys_leave_one_pending_job_each(database: Database, pending: int) -> None:
    corpus_pk, keys = job(database, pending).corpus_pk, range(100, 108)
    for _ in range(ROUNDS):
        for pk in [add_job(database, corpus_pk, bucket=bucket) for bucket in reversed(keys)]:
            taken(database, pk)
            expire_lease(database, pk)

        def request() -> None:
            with database.write() as connection:
                request_event_jobs(connection, corpus_pk, queue="interactive", buckets=keys)

        results = at_once(lambda: rescue_expired(database), request, request, lambda: rescue_expired(database))
        assert not [error for error in results if isinstance(error, Exception)]
        assert sorted(row.bucket for row in jobs(database, state="pending") if row.bucket in keys) == list(keys)
        change_rows(database, JOBS, JOBS.c.bucket.in_(keys), state="cancelled", finished_at=now_ms(), **_UNOWNED)


_UNOWNED = {"worker": None, "lease_until": None}


def test_a_second_job_of_a_running_key_waits_and_is_not_published(database: Database, pending: int) -> None:
    first = taken(database, pending)
    ingestion(database).put(CORPUS, [source("d", "newer text")])
    (second,) = jobs(database, state="pending")
    assert take(database, second.pk, worker="w2") is None
    with database.read() as connection:
        assert choose_publishable(connection, "interactive", limit=9, republish_ms=0) == []
    with database.write() as connection:
        finish(connection, first, state=JobState.SUCCEEDED)
    taken(database, second.pk, worker="w2")


def test_progress_forgives_earlier_deaths_and_moves_the_cursor(database: Database, pending: int) -> None:
    taken(database, pending, delivery_id="m")
    claimed = taken(database, pending, delivery_id="m", redelivered=True)
    leave_breadcrumb(database, claimed, 5)
    with database.write() as connection:
        record_progress(connection, claimed, cursor=41)
    row = job(database, pending)
    assert (row.deliveries, row.attempts, row.breadcrumb, row.cursor) == (1, 0, None, 41)


@pytest.mark.parametrize(("blamed", "attempts", "deliveries"), [("its documents", 1, 2), ("a service", 0, 1)])
def test_a_failed_attempt_returns_to_pending_with_back_off(
    database: Database, pending: int, blamed: str, attempts: int, deliveries: int
) -> None:
    claimed = taken(database, pending)
    with database.write() as connection:
        give_back(connection, claimed, error="no answer", delay_s=30, suspects_work=blamed == "its documents")
    row = job(database, pending)
    assert (row.state, row.attempts, row.last_error, row.worker) == ("pending", attempts, "no answer", None)
    assert take(database, pending) is None
    change_rows(database, JOBS, JOBS.c.pk == pending, available_at=now_ms())
    assert taken(database, pending).deliveries == deliveries


def test_what_has_ended_is_not_released_and_not_ended_again(database: Database, pending: int) -> None:
    claimed = taken(database, pending)
    with database.write() as connection:
        finish(connection, claimed, state=JobState.PARTIAL)
        release(connection, pending, error="late", delay_s=0, keeps_count=True)
    with pytest.raises(StaleFence), database.write() as connection:
        finish(connection, claimed, state=JobState.SUCCEEDED)
    assert job(database, pending).state == "partial"


def test_a_heartbeat_keeps_the_lease_until_its_holder_leaves(database: Database, pending: int) -> None:
    claimed = taken(database, pending)
    before = job(database, pending).lease_until
    with Heartbeat(database, claimed, interval_s=0.005):
        eventually(lambda: job(database, pending).lease_until > before + 5)
    assert job(database, pending).state == "running"


def test_a_heartbeat_ends_by_itself_when_its_fence_is_stale(database: Database, pending: int) -> None:
    claimed = taken(database, pending, delivery_id="m")
    beating = Heartbeat(database, claimed, interval_s=0.005)
    with beating:
        owner = taken(database, pending, delivery_id="m", redelivered=True)
        eventually(lambda: not beating._thread.is_alive(), describe="the end of the heartbeat")
    assert job(database, pending).fence == owner.fence
