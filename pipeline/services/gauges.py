"""Gauges that say what SQL says: coverage and queues. Set by whoever is scraped, just before it answers."""

from sqlalchemy import Connection

from pipeline.documents.caching import list_caching_off
from pipeline.jobs.store import queue_status
from pipeline.services.inspection import list_coverage
from pipeline.telemetry import metrics


def refresh_gauges(connection: Connection) -> None:
    """Set coverage by corpus and spec, and depth and oldest wait by queue; what is unknown or dropped disappears."""
    coverage, queues = list_coverage(connection), queue_status(connection)
    metrics.COVERAGE.clear()
    for entry in coverage:
        if entry.share is not None:
            metrics.COVERAGE.labels(entry.corpus, entry.spec).set(entry.share)
    metrics.CACHING_OFF.clear()
    for off in list_caching_off(connection):
        metrics.CACHING_OFF.labels(off.corpus, off.spec_id).set(1)
    for queue in queues:
        metrics.QUEUE_DEPTH.labels(queue.name).set(queue.depth)
        metrics.QUEUE_OLDEST_AGE.labels(queue.name).set(queue.oldest_age_s)
