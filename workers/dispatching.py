"""What the dispatcher's process does: sends jobs to Celery's broker, and a chore now and then."""

import threading
from collections.abc import Sequence

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from pipeline.bounded_redis import FAILURES, bounded_client, failed
from pipeline.database import Database
from pipeline.errors import Unavailable
from pipeline.factory import open_database, open_token_writer
from pipeline.jobs.chores import Chore, ChoreThread
from pipeline.jobs.dispatcher import Dispatcher
from pipeline.jobs.redis_nudge import NudgeListener
from pipeline.jobs.store import Publishable
from pipeline.services.cache_epoch import watch_cache
from pipeline.services.corpus_removal import purge_dropped
from pipeline.services.dropped_entries import end_abandoned_clearings
from pipeline.services.range_runs import start_due_gc
from pipeline.services.refilling import pursue_refills, pursue_verifications
from pipeline.services.retention import prune
from pipeline.services.schedules import evaluate_schedules
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache import TokenWriter
from workers.app import create_app
from workers.tasks import RUN_JOB

_log = get_logger(__name__)

_CACHE_TIMEOUT_S = 1.0


class CeleryPublisher:
    """Hands job numbers to Celery's broker."""

    def __init__(self, app: Celery, broker_url: str) -> None:
        self._app = app
        self._broker = bounded_client(broker_url, timeout_s=2.0)

    def publish(self, jobs: Sequence[Publishable]) -> None:
        """Send one message per job.

        Raises:
            Unavailable: The broker did not take them all.
        """
        try:
            with self._app.producer_or_acquire() as producer:
                for job in jobs:
                    self._app.send_task(
                        RUN_JOB,
                        args=[job.pk],
                        argsrepr=f"job {job.pk}",  # what Flower shows
                        queue=job.queue,
                        producer=producer,
                        ignore_result=True,
                        retry=False,
                    )
        except (OperationalError, RedisError, OSError) as error:
            raise Unavailable("the broker did not take the jobs", service="broker") from error

    def has_lost_messages(self, queue: str) -> bool:
        """Return whether the broker's list for a queue is empty.

        Raises:
            Unavailable: The broker did not answer.
        """
        try:
            return int(self._broker.llen(queue)) == 0
        except FAILURES as error:
            raise failed(error, service="broker", name="the broker") from error


def run(settings: Settings, stop: threading.Event) -> None:
    """Dispatch until told to stop."""
    database = open_database(settings, durable=False)
    listener = NudgeListener(settings.broker_url)
    publisher = CeleryPublisher(create_app(settings), settings.broker_url)
    dispatcher = Dispatcher(
        database,
        publisher,
        republish_s=settings.republish_s,
        lease_s=settings.lease_s,
        sweep=lambda: purge_dropped(database),
    )
    cache = open_token_writer(settings, timeout_s=_CACHE_TIMEOUT_S)
    chores = ChoreThread(
        choose_chores(database, cache, retention_days=settings.run_retention_days), leads=lambda: dispatcher.leads
    )
    _log.info("dispatcher.started")
    chores.start()
    dispatcher.run(interval_s=settings.dispatch_interval_s, stop=stop, wait=listener.wait)
    chores.close()
    for part in (listener, cache, database):
        part.close()


def choose_chores(database: Database, cache: TokenWriter, *, retention_days: int = 30) -> list[Chore]:
    """Return what a leading dispatcher does beside dispatching; each is soon done when there is nothing to do."""
    return [
        Chore("schedules", 1.0, lambda: evaluate_schedules(database)),
        Chore("cache", 2.0, lambda: watch_cache(database, cache)),
        Chore("clearings", 5.0, lambda: end_abandoned_clearings(database)),
        Chore("refills", 2.0, lambda: pursue_refills(database)),
        Chore("verifications", 5.0, lambda: pursue_verifications(database)),
        Chore("retention", 10.0, lambda: prune(database, retention_days=retention_days)),
        Chore("garbage", 60.0, lambda: start_due_gc(database)),
    ]
