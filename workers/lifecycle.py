"""What lives as long as a worker's processes.

What connects or starts threads is built after fork, since neither survives one. Modules and tables that every child
needs are there before it.
"""

import gc
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard.util import set_pdeathsig

from pipeline.errors import OutOfTime, Unavailable
from pipeline.factory import ProcessContext, open_database, open_worker_context
from pipeline.jobs.presence import announce_worker, retire_worker
from pipeline.loading import collector_at_rest
from pipeline.services.event_jobs import JobLimits
from pipeline.services.schedules import evaluate_schedules
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import remove_counts, serve_metrics
from pipeline.tokenizers import twin_texts

_log = get_logger(__name__)

_ANNOUNCE_S = 5.0

_GC_OBJECTS = 50_000
"""New objects between two looks for cycles: a slice of work makes that many, and cycles of none."""


class ChildProcess:
    """A prefork child: opens its resources once, then runs jobs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context: ProcessContext | None = None

    def open(self, **_signal: Any) -> None:
        """Build the resources of this process, which ends with the worker's main process, however that ends."""
        set_pdeathsig(signal.SIGKILL)
        self._context = open_worker_context(self._settings, worker=f"{os.uname().nodename}:{os.getpid()}")
        gc.set_threshold(_GC_OBJECTS, 20, 50)
        gc.collect()
        gc.freeze()  # jobs make objects by the hundred thousand; what lives as long as the process need not be

    def run(self, job_pk: int, *, delivery_id: str, redelivered: bool) -> None:
        """Run one job; whatever it left, the dispatcher is told to look."""
        context = self._opened()
        limits = JobLimits(time_limit_s=self._settings.job_time_limit_s)
        try:
            with _interrupted_when_out_of_time(limits.stop_after_s):
                context.job_runner.run(job_pk, delivery_id=delivery_id, redelivered=redelivered)
        except Unavailable as error:
            _log.warning("job.left", job_id=job_pk, service=error.service, error=str(error))
        except OutOfTime as error:  # outside its own handlers: the lease ends by itself and the job is rescued
            _log.warning("job.left", job_id=job_pk, error=str(error))
        context.nudger.nudge()

    def evaluate_schedules(self) -> None:
        """Start the runs that schedules mean by now, as the dispatcher does by itself."""
        context = self._opened()
        try:
            evaluate_schedules(context.database)
        except Unavailable as error:
            _log.warning("schedules.left", service=error.service, error=str(error))
        context.nudger.nudge()

    def _opened(self) -> ProcessContext:
        if self._context is None:
            self.open()
        assert self._context is not None  # noqa: S101  # opened above
        return self._context

    def close(self, **_signal: Any) -> None:
        """Release the resources of this process."""
        if self._context is not None:
            self._context.close()


@contextmanager
def _interrupted_when_out_of_time(limit_s: float) -> Iterator[None]:
    """Raise `OutOfTime` when Celery signals its soft limit, and nothing once the job is over.

    In place of Celery's own handler, whose error is an `Exception` that adapters would take for their library's.
    """

    def interrupt(*_signal: object) -> None:
        raise OutOfTime(limit_s)

    signal.signal(signal.SIGUSR1, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)


class MainProcess:
    """The worker's main process: says every few seconds that it is alive and what it consumes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def prepare(self, **_signal: Any) -> None:
        """Load what every child would: half a second of each."""
        with collector_at_rest():
            import pipeline.retrieval.qdrant  # noqa: F401, PLC0415  # beat and Flower load this module, too
        if self._settings.fast_tokenizer == "auto":
            twin_texts()

    def open(self, sender: Any = None, **_signal: Any) -> None:
        """Begin to announce this worker, and export what its children count."""
        consumed = sorted(queue.name for queue in sender.task_consumer.queues)
        self._thread = threading.Thread(
            target=self._announce, args=(sender.hostname, consumed, sender.controller.concurrency), daemon=True
        )
        self._thread.start()
        serve_metrics(self._settings.worker_metrics_port)

    def retire(self, **_signal: Any) -> None:
        """Say that this worker is gone."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def close(self, **_signal: Any) -> None:
        """Release what this process held."""
        self.retire()
        remove_counts()

    def _announce(self, name: str, queues: list[str], concurrency: int) -> None:
        database = open_database(self._settings, durable=False)
        over = False
        while not over:
            try:
                announce_worker(database, name, queues=queues, concurrency=concurrency)
            except Unavailable as error:
                _log.warning("worker.not_announced", error=str(error))
            except Exception:  # noqa: BLE001  # a worker that is silent for good counts as dead while it works
                _log.exception("worker.announcing_failed")
            over = self._over.wait(_ANNOUNCE_S)
        try:
            retire_worker(database, name)
        except Unavailable as error:
            _log.warning("worker.not_retired", error=str(error))
        database.close()
