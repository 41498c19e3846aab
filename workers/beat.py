"""Beat's schedule in memory, and a row in SQL that says that it ticks.

What is due is decided from SQL, by whoever looks, so beat has nothing to remember: a file of its own could only be
broken, or differ between builds of Python (Celery's default writes through `dbm`).
"""

from typing import Any

from celery import Celery
from celery.beat import Scheduler

from pipeline.errors import Unavailable
from pipeline.factory import open_database
from pipeline.jobs.presence import announce_worker, beat_name, retire_worker
from pipeline.settings import load_settings
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


class AnnouncedScheduler(Scheduler):  # type: ignore[misc]  # Celery publishes no types
    """Celery's scheduler without a file; says after each tick that it ticked."""

    def __init__(self, app: Celery, *, lazy: bool = False, **options: Any) -> None:
        """See Celery's.

        Args:
            app: The application.
            lazy: Whether it is only looked at, for the banner.
            options: Passed on.
        """
        super().__init__(app, lazy=lazy, **options)
        self._name = beat_name()
        self._announces = False
        self._database = None if lazy else open_database(load_settings(), durable=False)

    def tick(self, **options: Any) -> float:
        """Send what is due, say so, and return the seconds until the next look."""
        wait_s: float = super().tick(**options)
        if self._database is not None and wait_s > 0:
            self._announces = True
            try:
                announce_worker(self._database, self._name, queues=[], concurrency=0)
            except Unavailable as error:
                _log.warning("beat.not_announced", error=str(error))
            finally:
                self._announces = False
        return wait_s

    def close(self) -> None:
        """Say that it is gone, and let go of everything; Celery's signal handler calls this, and its loop's end again.

        Called by a signal in the middle of a write, saying it would wait for that very write: the second call does it.
        """
        if self._database is not None and not self._announces:
            database, self._database = self._database, None
            try:
                retire_worker(database, self._name)
            except Unavailable as error:
                _log.warning("beat.not_retired", error=str(error))
            database.close()
        super().close()
