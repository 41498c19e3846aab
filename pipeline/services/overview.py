"""How the whole deployment stands at one moment, for operators."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

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


class WriteProbe(Protocol):
    """Asks one service whether it takes writes."""

    def problem(self) -> str | None:
        """Return in a sentence why no write is taken; None if one was."""


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
    problems: Mapping[str, str]
    """Why database, broker or cache take no writes, in a sentence, by their names; none when all is well."""


def take_overview(database: Database, cache: TokenWriter, probes: Mapping[str, WriteProbe]) -> Overview:
    """Look at everything once.

    Args:
        database: Says most of it.
        cache: Is asked for its size, and whether this process may write there.
        probes: Ask whether writes are taken, by service.

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
    server = _ask(cache)
    problems = {service: problem for service, probe in probes.items() if (problem := probe.problem()) is not None}
    if server is not None and "cache" not in problems and (mismatch := _mismatch(cache)) is not None:
        problems["cache"] = mismatch
    return Overview(states, coverage, caching_off, queues, workers, dispatcher, runs, next_runs, server, problems)


def _ask(cache: TokenWriter) -> CacheServer | None:
    try:
        return cache.server()
    except Unavailable:
        return None


def _mismatch(cache: TokenWriter) -> str | None:
    try:
        return cache.key_mismatch()
    except Unavailable as error:
        return str(error)
