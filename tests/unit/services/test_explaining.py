"""What happens next to a document, in one sentence."""

from dataclasses import replace

import pytest

from pipeline.services.explaining import JobReport, what_next
from pipeline.services.inspection import DocumentReport, PassageReport

SERVED = DocumentReport("a", 2, 2, "served", (PassageReport(0, 5, cached=True),), None)
STALE = replace(SERVED, generation=3, state="stale")
PENDING_JOB = JobReport(1, "pending", due_in_s=0.0, lease_s=None, worker=None, deliveries=0, last_error=None)
RUNNING_JOB = replace(PENDING_JOB, state="running", lease_s=20.0, worker="w")


@pytest.mark.parametrize(
    ("document", "jobs", "workers", "due_in_s", "expected"),
    [
        (SERVED, (), 1, 0.0, "every entry is in the cache"),
        (replace(SERVED, passages=(PassageReport(0, 5, cached=False),)), (), 1, 0.0, "1 of its entries are not"),
        (replace(SERVED, state="dead", generation=3), (), 1, 0.0, "failed for good"),
        (replace(SERVED, state="deleted", passages=()), (), 1, 0.0, "it is deleted"),
        (STALE, (), 1, 0.0, "no job would publish it"),
        (STALE, (PENDING_JOB,), 0, 0.0, "start `forefill worker`"),
        (STALE, (PENDING_JOB,), 1, 0.0, "as soon as one is free"),
        (STALE, (PENDING_JOB,), 1, 12.0, "tried again in 12 s"),
        (STALE, (PENDING_JOB, RUNNING_JOB), 1, 0.0, "worker w is at its bucket"),
        (STALE, (replace(RUNNING_JOB, lease_s=-1.0),), 1, 0.0, "stopped answering"),
    ],
)
def test_the_next_step_is_named(
    document: DocumentReport, jobs: tuple[JobReport, ...], workers: int, due_in_s: float, expected: str
) -> None:
    said = what_next(document, published_generation=2, jobs=jobs, workers=workers, due_in_s=due_in_s)
    assert expected in said
