"""Checks of who works: every queue needs a worker, and somebody must tell workers of jobs."""

from collections.abc import Iterator
from importlib.util import find_spec

from pipeline.database import Database
from pipeline.jobs.dispatcher import ROLE
from pipeline.jobs.presence import find_leader
from pipeline.jobs.store import QueueStatus, queue_status
from pipeline.services.diagnosis.findings import Finding
from pipeline.settings import Settings

FAST_LIBRARY = "gigatoken"
OLD_S = 300.0
"""Seconds after which a due job has waited suspiciously long."""


def check(settings: Settings, database: Database, *, takes_writes: bool) -> Iterator[Finding]:
    """Yield whether a dispatcher leads and every queue is consumed, and what workers encode with.

    Args:
        settings: Of the deployment.
        database: Holds what dispatchers and workers say of themselves.
        takes_writes: Whether they can say anything now.
    """
    yield check_fast_tokenizer(settings)
    if not takes_writes:
        yield Finding.warn(
            "workers",
            "unknown: dispatcher and workers say in the database that they live, and it takes no writes",
            remedy="let the database take writes, then run `forefill doctor` again; start no second ones before",
        )
        return
    with database.read() as connection:
        leader = find_leader(connection, ROLE)
        queues = queue_status(connection)
    if leader is None:
        yield Finding.fail("dispatcher", "none leads: workers learn of no job", remedy="start `forefill dispatcher`")
    else:
        yield Finding.ok("dispatcher", f"{leader} leads")
    for queue in queues:
        yield check_queue(queue)


def check_queue(queue: QueueStatus) -> Finding:
    """Return whether one queue is consumed, and fast enough."""
    subject = f"queue {queue.name}"
    if not queue.workers:
        return Finding.fail(
            subject,
            f"no worker consumes it; {queue.depth:,} jobs wait",
            remedy=f"start `forefill worker --queues {queue.name}`",
        )
    message = f"{queue.workers} worker processes, {queue.running:,} jobs run, {queue.depth:,} wait"
    if queue.oldest_age_s > OLD_S:
        return Finding.warn(
            subject,
            f"{message}, the oldest for {queue.oldest_age_s:,.0f} s",
            remedy="start more workers, or look into their logs",
        )
    return Finding.ok(subject, message)


def check_fast_tokenizer(settings: Settings) -> Finding:
    """Return what workers tokenize with where the same packages are installed as here; every way gives the same ids."""
    subject = "tokenizing"
    if settings.fast_tokenizer == "off":
        return Finding.ok(subject, "the fast tokenizer is switched off (FOREFILL_FAST_TOKENIZER)")
    if find_spec(FAST_LIBRARY) is None:
        return Finding.ok(
            subject, f"{FAST_LIBRARY} is not installed here; with the extra `fast` workers fill several times faster"
        )
    return Finding.ok(subject, f"workers use {FAST_LIBRARY} where its ids are the reference's")
