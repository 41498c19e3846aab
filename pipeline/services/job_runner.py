"""From a job's number to its end: claim, keep the lease, run what its kind says, count the outcome."""

import time

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_exponential_jitter

from pipeline.database import is_blameless
from pipeline.errors import StaleFence, Unavailable, error_sentence, is_failure
from pipeline.jobs.claims import ClaimedJob, claim, finish, give_back
from pipeline.jobs.heartbeat import Heartbeat
from pipeline.jobs.range_runs import settle_ranges
from pipeline.jobs.retry import backoff_s
from pipeline.jobs.states import JobState
from pipeline.services.corpus_removal import run_drop_job
from pipeline.services.event_jobs import EventJobRunner, JobLimits, WorkerResources
from pipeline.services.garbage import run_gc_job
from pipeline.services.range_jobs import FINAL_ATTEMPTS, RangeJobRunner
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_LAST_TRIES = 3
"""Tries to give a job back when its time is over already."""


class JobRunner:
    """Runs jobs by number. Lives as long as its worker process."""

    def __init__(
        self, resources: WorkerResources, *, worker: str, lease_s: float, heartbeat_s: float, limits: JobLimits
    ) -> None:
        self._resources = resources
        self._worker = worker
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._limits = limits
        self._outages = 0  # in a row, over all jobs: what is away is away for the next one, too

    def run(self, job_pk: int, *, delivery_id: str, redelivered: bool) -> str:
        """Claim a job and run it; return its outcome, `skipped` if it was not to be had.

        Raises:
            Unavailable: The database did not answer; the lease ends by itself and the job is rescued.
        """
        job = claim(
            self._resources.database,
            job_pk,
            worker=self._worker,
            delivery_id=delivery_id,
            redelivered=redelivered,
            lease_s=self._lease_s,
        )
        if job is None:
            return "skipped"
        with Heartbeat(self._resources.database, job, interval_s=self._heartbeat_s):
            outcome = self._run_claimed(job)
        metrics.JOBS.labels(job.kind, outcome).inc()
        _log.info("job.ended", job_id=job.pk, kind=job.kind, outcome=outcome, fence=job.fence)
        return outcome

    def _run_claimed(self, job: ClaimedJob) -> str:
        try:
            return self._attempt(job)
        except StaleFence:
            return "fenced"

    def _attempt(self, job: ClaimedJob) -> str:
        """Run a job once; whatever goes wrong, it is given back and does not wait for its lease."""
        stop_at = time.monotonic() + self._limits.stop_after_s
        try:
            outcome = self._work(job)
        except StaleFence:
            raise
        except Unavailable as error:
            return self._put_off(job, f"{error.service}: {error}", stop_at=stop_at)
        except BaseException as error:
            if not is_failure(error):
                raise
            _log.exception("job.failed", job_id=job.pk, error=type(error).__name__)
            if job.run_id is None and is_blameless(error):
                return self._put_off(job, f"database: {error_sentence(error)}", stop_at=stop_at)
            if job.run_id is not None and job.attempts + 1 >= FINAL_ATTEMPTS:
                return self._give_up(job, error_sentence(error))
            delay_s = backoff_s(job.attempts + 1)
            self._give_back(job, error_sentence(error), delay_s=delay_s, suspects_work=True, stop_at=stop_at)
            return "failed"
        self._outages = 0
        return outcome

    def _work(self, job: ClaimedJob) -> str:
        match job.kind:
            case "event":
                return EventJobRunner(self._resources, job, limits=self._limits).run()
            case "drop":
                return run_drop_job(self._resources.database, self._resources.index, job)
            case "gc":
                return run_gc_job(self._resources, job, limits=self._limits)
            case _:
                return RangeJobRunner(self._resources, job, limits=self._limits).run()

    def _give_up(self, job: ClaimedJob, error: str) -> str:
        """End a range job for good: its run fails and says why. Event jobs are never given up: they hold writes."""
        with self._resources.database.write() as connection:
            finish(connection, job, state=JobState.DEAD, error=error)
        settle_ranges(self._resources.database)
        return JobState.DEAD.value

    def _put_off(self, job: ClaimedJob, error: str, *, stop_at: float) -> str:
        """Return a job that is not to blame; wait the longer, the more jobs in a row met the same."""
        self._outages += 1
        delay_s = backoff_s(self._outages, cap_s=10.0)
        self._give_back(job, error, delay_s=delay_s, suspects_work=False, stop_at=stop_at)
        return "unavailable"

    def _give_back(self, job: ClaimedJob, error: str, *, delay_s: float, suspects_work: bool, stop_at: float) -> None:
        """Return a job, and try until its time is over.

        A job that is left to its lease looks like one that killed its worker, and the document at hand is charged.
        """
        for attempt in Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(max(0.0, stop_at - time.monotonic())) & stop_after_attempt(_LAST_TRIES),
            wait=wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.05),
            reraise=True,
        ):
            with attempt, self._resources.database.write() as connection:
                give_back(connection, job, error=error, delay_s=delay_s, suspects_work=suspects_work)
