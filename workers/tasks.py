"""The tasks: a number or nothing in, a service call, nothing out."""

from typing import Any

from celery import Celery

from workers.app import EVALUATE_SCHEDULES
from workers.lifecycle import ChildProcess

RUN_JOB = "forefill.run_job"
"""Name of the task that runs a job, as Flower shows it."""


def register(app: Celery, child: ChildProcess) -> None:
    """Add the tasks to an application."""

    @app.task(name=RUN_JOB, bind=True)  # type: ignore[untyped-decorator]  # Celery publishes no types
    def run_job(self: Any, job_id: int) -> None:
        redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
        child.run(job_id, delivery_id=self.request.id, redelivered=redelivered)

    @app.task(name=EVALUATE_SCHEDULES)  # type: ignore[untyped-decorator]  # as above
    def evaluate_schedules() -> None:
        child.evaluate_schedules()
