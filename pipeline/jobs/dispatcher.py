"""The dispatcher: tells workers of pending jobs, rescues what they dropped, ends what is finished.

Several may run; one leads by a lease in SQL. Everything it knows is in SQL, so that losing it, or the broker, costs
time and nothing else. A tick is a plain function of the database and a publisher.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.database import Database
from pipeline.errors import Unavailable
from pipeline.jobs.claims import rescue_expired
from pipeline.jobs.presence import lead, resign
from pipeline.jobs.range_runs import plan_all, settle_ranges
from pipeline.jobs.runs import seal_abandoned, settle
from pipeline.jobs.store import (
    QUEUES,
    Publishable,
    choose_publishable,
    count_outstanding,
    mark_published,
    mark_unpublished,
    prune_finished,
    queue_status,
    requeue_forgotten,
    worker_slots,
)
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

ROLE = "dispatcher"
"""Name of the leadership in SQL."""

LEAD_S = 5.0
"""Seconds a leader may be silent before another takes over."""

_WORKER_ALIVE_MS = 30_000
_SLOTS_WITHOUT_WORKERS = 4
_SWEEP_S = 10.0
_KEPT_MS = 7 * 24 * 3_600_000


class JobPublisher(Protocol):
    """The way to the workers."""

    def publish(self, jobs: Sequence[Publishable]) -> None:
        """Hand job numbers to the broker.

        Raises:
            Unavailable: The broker did not take them; some may have arrived all the same.
        """

    def has_lost_messages(self, queue: str) -> bool:
        """Return whether the broker holds nothing for a queue that should have messages."""


@dataclass(frozen=True, slots=True)
class TickReport:
    """What one look did."""

    leads: bool
    published: int = 0
    rescued: int = 0
    settled: int = 0


class Dispatcher:
    """Ticks while it leads. Lives as long as its process."""

    def __init__(
        self,
        database: Database,
        publisher: JobPublisher,
        *,
        republish_s: float,
        lease_s: float = 30.0,
        holder: str | None = None,
        sweep: Callable[[], object] | None = None,
    ) -> None:
        """Remember what is needed.

        Args:
            database: Where jobs are.
            publisher: The way to the workers.
            republish_s: Seconds after which an unclaimed job is published again.
            lease_s: Seconds that workers own a job without a heartbeat.
            holder: This process's name; made from host and process id by default.
            sweep: Called every ten seconds while leading, for slower housekeeping.
        """
        self._database = database
        self._publisher = publisher
        self._republish_ms = round(republish_s * 1000)
        self._holder = holder or f"{socket.gethostname()}:{os.getpid()}"
        self._sweep = sweep
        self._swept_at = float("-inf")
        self._leads = False
        self._lease_s = lease_s
        self._answered_at: float | None = None
        self._rescues_from = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this process led when it last looked."""
        return self._leads

    def tick(self) -> TickReport:
        """Look once: rescue, settle, plan, publish.

        Raises:
            Unavailable: Database or broker did not answer.
        """
        self._leads = False
        self._leads = lead(self._database, ROLE, holder=self._holder, lease_s=LEAD_S)
        may_rescue = self._may_rescue()
        if not self._leads:
            return TickReport(leads=False)
        rescued = rescue_expired(self._database) if may_rescue else []
        if rescued:
            _log.warning("jobs.rescued", job_ids=rescued)
        settled = settle(self._database) + settle_ranges(self._database)
        plan_all(self._database)
        if time.monotonic() - self._swept_at > _SWEEP_S:
            self._swept_at = time.monotonic()
            self._housekeeping()
        # Last, because the broker may be away, and nothing else needs it.
        published = sum(self._publish(queue) for queue in QUEUES)
        return TickReport(leads=True, published=published, rescued=len(rescued), settled=settled)

    def run(self, *, interval_s: float, stop: threading.Event, wait: Callable[[float], None]) -> None:
        """Tick until told to stop; an unreachable service is logged and tried again.

        Args:
            interval_s: Longest time between two ticks.
            stop: Ends the loop.
            wait: Returns after a nudge, or after the seconds given.
        """
        while not stop.is_set():
            leads = False
            try:
                leads = self.tick().leads
            except Unavailable as error:
                _log.warning("dispatcher.unavailable", service=error.service, error=str(error))
            except Exception:  # noqa: BLE001  # rescues and publishing must go on after whatever one tick met
                _log.exception("dispatcher.failed")
            if leads:
                wait(interval_s)
            else:
                stop.wait(interval_s)
        try:
            resign(self._database, ROLE, holder=self._holder)
        except Unavailable as error:
            _log.warning("dispatcher.not_resigned", error=str(error))

    def _may_rescue(self) -> bool:
        """Note that the database has just answered; tell whether a lease that ended says something about its holder.

        It does not just after this process had no answer for about as long as heartbeats are apart: holders had none
        either, or were stopped with it. They get the time to renew what is theirs before it counts as abandoned.
        """
        now = time.monotonic()
        if self._answered_at is not None and now - self._answered_at > self._lease_s / 3:
            self._rescues_from = now + self._lease_s / 2
        self._answered_at = now
        return now >= self._rescues_from

    def _publish(self, queue: str) -> int:
        """Publish due jobs of a queue, at most about twice what its workers hold."""
        with self._database.read() as connection:
            slots = worker_slots(connection, alive_ms=_WORKER_ALIVE_MS).get(queue, _SLOTS_WITHOUT_WORKERS)
            outstanding = count_outstanding(connection, queue, republish_ms=self._republish_ms)
        if outstanding and self._publisher.has_lost_messages(queue):
            self._recover(queue)
            outstanding = 0
        with self._database.read() as connection:
            room = max(0, 2 * slots - outstanding)
            jobs = choose_publishable(connection, queue, limit=room, republish_ms=self._republish_ms)
        if jobs:
            self._publisher.publish(jobs)
            with self._database.write() as connection:
                mark_published(connection, [job.pk for job in jobs])
        return len(jobs)

    def _recover(self, queue: str) -> None:
        with self._database.write() as connection:
            forgotten = mark_unpublished(connection, queue, older_than_ms=_LOST_AFTER_MS)
        if forgotten:
            _log.warning("jobs.republished", queue=queue, jobs=forgotten)

    def _housekeeping(self) -> None:
        forgotten = requeue_forgotten(self._database)
        if forgotten:
            _log.error("jobs.forgotten", keys=forgotten)
        seal_abandoned(self._database)
        prune_finished(self._database, older_than_ms=_KEPT_MS)
        with self._database.read() as connection:
            for status in queue_status(connection):
                metrics.QUEUE_DEPTH.labels(status.name).set(status.depth)
                metrics.QUEUE_OLDEST_AGE.labels(status.name).set(status.oldest_age_s)
        if self._sweep is not None:
            self._sweep()


_LOST_AFTER_MS = 2_000
"""A published job that is neither claimed nor in the broker after this long is lost: its message takes milliseconds."""
