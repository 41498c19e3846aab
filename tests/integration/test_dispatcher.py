"""The dispatcher: who leads, what is published, what comes back when the broker or a worker loses it."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import pytest

from pipeline.database import Database, now_ms
from pipeline.errors import Unavailable
from pipeline.jobs.claims import JOBS, give_back
from pipeline.jobs.dispatcher import ROLE, Dispatcher, TickReport
from pipeline.jobs.presence import announce_worker, find_leader, lead, list_workers, resign, retire_worker
from pipeline.jobs.store import Publishable, count_outstanding, prune_finished, queue_status
from pipeline.jobs.tables import LeadershipRow
from tests.support.write_path import (
    CORPUS,
    InMemoryWorker,
    add_job,
    at_once,
    change_rows,
    expire_lease,
    ingestion,
    job,
    jobs,
    report,
    source,
    sources,
    taken,
)

LEADERSHIPS = LeadershipRow.metadata.tables["leaderships"]


@dataclass(slots=True)
class ListBroker:
    """A broker that can be down for a while, and lose what it holds."""

    held: list[Publishable] = field(default_factory=list)
    failures: int = 0
    """How many times it still refuses."""

    def publish(self, jobs: Sequence[Publishable]) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("gone", service="broker")
        self.held += jobs

    def has_lost_messages(self, queue: str) -> bool:
        return not [job for job in self.held if job.queue == queue]


def dispatcher(database: Database, broker: ListBroker, *, holder: str = "one") -> Dispatcher:
    return Dispatcher(database, broker, republish_s=15.0, holder=holder)


def pending_jobs(database: Database, count: int) -> list[int]:
    """Accept one document and spread pending jobs over more buckets."""
    ingestion(database).put(CORPUS, [source("d")])
    corpus_pk = jobs(database)[0].corpus_pk
    for number in range(count - 1):
        add_job(database, corpus_pk, bucket=100 + number)
    return [row.pk for row in jobs(database)]


def test_a_pending_job_is_published_once(database: Database) -> None:
    broker, pks = ListBroker(), pending_jobs(database, 1)
    dispatching = dispatcher(database, broker)
    assert [dispatching.tick().published for _ in range(3)] == [1, 0, 0]
    assert [each.pk for each in broker.held] == pks


def test_no_more_is_published_than_twice_what_workers_hold(database: Database) -> None:
    broker = ListBroker()
    pending_jobs(database, 9)
    announce_worker(database, "w", queues=["interactive", "bulk"], concurrency=3)
    dispatching = dispatcher(database, broker)
    assert [dispatching.tick().published for _ in range(2)] == [6, 0]
    taken(database, broker.held[0].pk)
    assert dispatching.tick().published == 1


def test_corpora_take_turns_in_a_queue(database: Database) -> None:
    pending_jobs(database, 8)
    ingestion(database).put("other", [source("d")])
    broker = ListBroker()
    announce_worker(database, "w", queues=["interactive"], concurrency=1)
    dispatcher(database, broker).tick()
    assert len({job(database, each.pk).corpus_pk for each in broker.held}) == 2


def test_what_the_broker_lost_is_published_again(database: Database) -> None:
    broker, pks = ListBroker(), pending_jobs(database, 2)
    dispatching = dispatcher(database, broker)
    dispatching.tick()
    broker.held.clear()
    assert dispatching.tick().published == 0, "a message may take a moment"
    change_rows(database, JOBS, JOBS.c.pk.in_(pks), published_at=now_ms() - 3_000)
    assert dispatching.tick().published == 2


def test_a_message_that_was_lost_among_others_is_published_again_later(database: Database) -> None:
    broker, pks = ListBroker(), pending_jobs(database, 2)
    dispatching = dispatcher(database, broker)
    dispatching.tick()
    broker.held = [each for each in broker.held if each.pk == pks[0]]
    change_rows(database, JOBS, JOBS.c.pk == pks[1], published_at=now_ms() - 16_000)
    assert dispatching.tick().published == 1
    assert broker.held[-1].pk == pks[1]


def test_a_job_that_is_not_due_is_not_published(database: Database) -> None:
    broker, (pk,) = ListBroker(), pending_jobs(database, 1)
    change_rows(database, JOBS, JOBS.c.pk == pk, available_at=now_ms() + 60_000)
    assert dispatcher(database, broker).tick().published == 0


def test_while_the_broker_is_down_jobs_stay_unpublished(database: Database) -> None:
    broker, (pk,) = ListBroker(failures=1), pending_jobs(database, 1)
    dispatching = dispatcher(database, broker)
    with pytest.raises(Unavailable):
        dispatching.tick()
    assert job(database, pk).published_at is None
    assert dispatching.tick().published == 1


def test_the_loop_outlives_a_broker_that_is_down(database: Database) -> None:
    broker, (pk,) = ListBroker(failures=3), pending_jobs(database, 1)
    stop = threading.Event()
    dispatcher(database, broker).run(interval_s=0.01, stop=stop, wait=lambda _seconds: stop.set())
    assert [each.pk for each in broker.held] == [pk]


def test_an_expired_lease_is_rescued_and_published_again(database: Database) -> None:
    broker, (pk,) = ListBroker(), pending_jobs(database, 1)
    dispatching = dispatcher(database, broker)
    dispatching.tick()
    taken(database, pk)
    expire_lease(database, pk)
    tick = dispatching.tick()
    assert (tick.rescued, tick.published) == (1, 1)


def test_a_tick_ends_runs_that_wait_for_nothing(database: Database) -> None:
    answer = ingestion(database).put(CORPUS, sources(2))
    worker = InMemoryWorker(database)
    worker.run_all()
    dispatcher(database, ListBroker()).tick()
    assert report(database, answer.run_id).state == "succeeded"


def test_one_of_several_dispatchers_leads(database: Database) -> None:
    pending_jobs(database, 1)
    brokers = [ListBroker() for _ in range(4)]
    ticks = [partial(dispatcher(database, broker, holder=f"h{n}").tick) for n, broker in enumerate(brokers)]
    reports = at_once(*ticks)
    assert sum(cast("TickReport", tick).leads for tick in reports) == 1
    assert sum(len(broker.held) for broker in brokers) == 1


def test_the_lead_passes_on_when_its_holder_falls_silent(database: Database) -> None:
    assert lead(database, ROLE, holder="one", lease_s=5)
    assert not lead(database, ROLE, holder="two", lease_s=5)
    assert lead(database, ROLE, holder="one", lease_s=5)
    change_rows(database, LEADERSHIPS, LEADERSHIPS.c.role == ROLE, lease_until=now_ms() - 1)
    assert lead(database, ROLE, holder="two", lease_s=5)
    assert not lead(database, ROLE, holder="one", lease_s=5)


def test_the_lead_passes_on_at_once_when_its_holder_resigns(database: Database) -> None:
    assert lead(database, ROLE, holder="one", lease_s=5)
    resign(database, ROLE, holder="two")
    assert not lead(database, ROLE, holder="two", lease_s=5)
    resign(database, ROLE, holder="one")
    with database.read() as connection:
        assert find_leader(connection, ROLE) is None
    assert lead(database, ROLE, holder="two", lease_s=5)


def test_a_dispatcher_that_stops_resigns(database: Database) -> None:
    stop = threading.Event()
    dispatcher(database, ListBroker()).run(interval_s=0.01, stop=stop, wait=lambda _seconds: stop.set())
    with database.read() as connection:
        assert find_leader(connection, ROLE) is None


def test_workers_announce_themselves_again_and_again_and_leave(database: Database) -> None:
    announce_worker(database, "w", queues=["bulk"], concurrency=1)
    announce_worker(database, "w", queues=["bulk", "interactive"], concurrency=2)
    with database.read() as connection:
        (worker,) = list_workers(connection)
        slots = {status.name: status.workers for status in queue_status(connection)}
    assert (worker.queues, worker.concurrency) == (("bulk", "interactive"), 2)
    assert slots == {"interactive": 2, "bulk": 2, "maintenance": 0}
    retire_worker(database, "w")
    with database.read() as connection:
        assert list_workers(connection) == []


def test_queues_report_depth_running_and_the_oldest_wait(database: Database) -> None:
    pks = pending_jobs(database, 3)
    taken(database, pks[0])
    change_rows(database, JOBS, JOBS.c.pk == pks[1], available_at=now_ms() - 4_000)
    change_rows(database, JOBS, JOBS.c.pk == pks[2], available_at=now_ms() + 60_000)
    with database.read() as connection:
        status = next(each for each in queue_status(connection) if each.name == "interactive")
        assert count_outstanding(connection, "interactive", republish_ms=15_000) == 0
    assert (status.depth, status.running) == (2, 1)
    assert 4.0 <= status.oldest_age_s < 60.0
    assert status.overdue_s == status.oldest_age_s


def test_a_job_that_is_tried_again_and_again_grows_old(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    (failing,) = jobs(database)
    for made_again in (False, True):
        change_rows(database, JOBS, JOBS.c.pk == failing.pk, created_at=now_ms() - 90_000, available_at=now_ms())
        claimed = taken(database, failing.pk)
        if made_again:  # a change that comes meanwhile has a job of its own, which inherits
            ingestion(database).put(CORPUS, [source("d", "changed meanwhile")])
        with database.write() as connection:
            give_back(connection, claimed, error="no", delay_s=30, suspects_work=True)
            status = next(each for each in queue_status(connection) if each.name == "interactive")
        assert 90.0 <= status.oldest_age_s < 150.0
        assert status.overdue_s == 0


def test_jobs_that_ended_long_ago_are_forgotten(database: Database) -> None:
    ingestion(database).put(CORPUS, [source("d")])
    InMemoryWorker(database).run_all()
    (ended,) = jobs(database)
    assert prune_finished(database, older_than_ms=60_000) == 0
    change_rows(database, JOBS, JOBS.c.pk == ended.pk, finished_at=now_ms() - 61_000)
    assert prune_finished(database, older_than_ms=60_000) == 1
