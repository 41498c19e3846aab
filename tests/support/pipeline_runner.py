"""Workers without Celery: jobs claimed and run in the test's own process, by the services that workers use."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from pipeline.database import Database
from pipeline.factory import open_database, open_worker_context
from pipeline.jobs.runs import settle
from pipeline.jobs.store import QUEUES, choose_publishable
from pipeline.services.corpus_removal import purge_dropped
from pipeline.services.job_runner import JobRunner
from pipeline.settings import Settings

_MOST_ROUNDS = 1000
_deliveries = count()


def run_pending_jobs(runner: JobRunner, database: Database) -> list[str]:
    """Run every job that is due, those included that jobs leave behind, and end what has finished.

    Returns:
        The outcome of each job, in the order they ran. Jobs that are put off until later are not waited for.
    """
    outcomes: list[str] = []
    for _ in range(_MOST_ROUNDS):
        with database.read() as connection:
            due = [
                job.pk for queue in QUEUES for job in choose_publishable(connection, queue, limit=100, republish_ms=0)
            ]
        if not due:
            settle(database)
            purge_dropped(database)
            return outcomes
        outcomes += [runner.run(pk, delivery_id=f"test-{next(_deliveries)}", redelivered=False) for pk in due]
    raise AssertionError(f"jobs never end: {outcomes[-20:]}")


class PipelineRunner:
    """A worker that runs when a test says so."""

    def __init__(self, runner: JobRunner, database: Database) -> None:
        self._runner = runner
        self._database = database

    def run_pending_jobs(self) -> list[str]:
        """See the function of that name."""
        return run_pending_jobs(self._runner, self._database)


@contextmanager
def open_pipeline_runner(settings: Settings) -> Iterator[PipelineRunner]:
    """Build a worker's resources in this process, and close them."""
    context = open_worker_context(settings, worker="test")
    database = open_database(settings, durable=False, pool_size=1)
    try:
        yield PipelineRunner(context.job_runner, database)
    finally:
        database.close()
        context.close()
