"""How the whole deployment stands at one moment, for operators."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.database import Database
from pipeline.documents.caching import CachingOff, list_caching_off
from pipeline.errors import Unavailable
from pipeline.jobs.dispatcher import ROLE
from pipeline.jobs.presence import Worker, find_leader, list_workers
from pipeline.jobs.run_reports import RunReport, list_runs
from pipeline.jobs.store import QueueStatus, queue_status
from pipeline.services.corpus_settings import describe_corpora
from pipeline.services.inspection import Coverage, count_states, list_coverage
from pipeline.token_cache import CacheServer, TokenWriter

_RUNS = 20


@dataclass(frozen=True, slots=True)
class Overview:
    """Corpora, queues, workers, runs and cache."""

    states: Mapping[str, Mapping[str, int]]
    """Documents by state, by corpus."""
    coverage: tuple[Coverage, ...]
    caching_off: tuple[CachingOff, ...]
    """Where queries tokenize since an audit found a difference."""
    queues: tuple[QueueStatus, ...]
    workers: tuple[Worker, ...]
    dispatcher: str | None
    """Who leads; None if nobody does."""
    runs: tuple[RunReport, ...]
    """Unfinished ones, newest first, at most 20."""
    next_runs: Mapping[str, int]
    """When schedules are due, by corpus, in milliseconds since 1970."""
    cache: CacheServer | None
    """None: it does not answer."""


def take_overview(database: Database, cache: TokenWriter) -> Overview:
    """Look at everything once.

    Raises:
        Unavailable: The database did not answer; a cache that does not is part of the picture.
    """
    with database.read() as connection:
        reports = describe_corpora(connection)
        states = {report.corpus.name: count_states(connection, report.corpus.pk) for report in reports}
        coverage = tuple(list_coverage(connection))
        caching_off = tuple(list_caching_off(connection))
        queues = tuple(queue_status(connection))
        workers = tuple(list_workers(connection))
        dispatcher = find_leader(connection, ROLE)
        runs = tuple(list_runs(connection, limit=_RUNS, unfinished=True))
    next_runs = {report.corpus.name: report.next_run_at for report in reports if report.next_run_at is not None}
    return Overview(states, coverage, caching_off, queues, workers, dispatcher, runs, next_runs, _ask(cache))


def _ask(cache: TokenWriter) -> CacheServer | None:
    try:
        return cache.server()
    except Unavailable:
        return None
