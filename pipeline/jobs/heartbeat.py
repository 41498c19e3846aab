"""Keeps the lease of a job alive while its holder computes.

A thread, because the holder may spend longer in one call than the lease lasts. A process that is stopped as a whole
stops beating too: that is the point.
"""

import threading
from types import TracebackType
from typing import Self

from pipeline.database import Database
from pipeline.errors import StaleFence, Unavailable
from pipeline.jobs.claims import ClaimedJob, heartbeat
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)


class Heartbeat:
    """Renews one job's lease at an interval, from entering the context to leaving it."""

    def __init__(self, database: Database, job: ClaimedJob, *, interval_s: float) -> None:
        self._database = database
        self._job = job
        self._interval_s = interval_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{job.pk}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._interval_s):
            try:
                heartbeat(self._database, self._job)
            except StaleFence:
                return  # the holder finds out by itself at its next write
            except Unavailable as error:
                _log.warning("job.heartbeat_missed", job_id=self._job.pk, error=str(error))
            except Exception:  # noqa: BLE001  # the next beat must follow: without one the job looks abandoned
                _log.exception("job.heartbeat_failed", job_id=self._job.pk)
