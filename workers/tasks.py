"""The one task: a job's number in, a service call, nothing out."""

from typing import Any

from celery import Celery

from workers.lifecycle import ChildProcess

RUN_JOB = "forefill.run_job"
"""Name of the task, as Flower shows it."""


def register(app: Celery, child: ChildProcess) -> None:
    """Add the task to an application."""

    @app.task(name=RUN_JOB, bind=True)  # type: ignore[untyped-decorator]  # Celery publishes no types
    def run_job(self: Any, job_id: int) -> None:
        redelivered = bool((self.request.delivery_info or {}).get("redelivered"))
        child.run(job_id, delivery_id=self.request.id, redelivered=redelivered)
