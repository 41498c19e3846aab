"""Every metric Forefill exports, and how several processes export what all of them count. No label takes free text.

Declared here and nowhere else, so that a dashboard can be written against one page.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, Summary, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

CACHE_HITS = Counter("token_cache_hits", "Passages whose token ids came from the cache")
CACHE_MISSES = Counter(
    "token_cache_misses",
    "Passages whose token ids had to be computed while a query waited",
    ["reason"],  # absent | corrupt | unavailable
)
CACHE_HIT_RATE = Gauge("token_cache_hit_rate", "Hits of all lookups since the last reset, percent")
CACHE_HIT_LATENCY = Histogram(
    "token_cache_hit_latency_seconds",
    "Time of one lookup of a query's passages",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
)
CACHE_ALL_HIT_TIME = Summary("token_cache_all_hit_lookup_seconds", "Time of lookups that missed nothing")
CACHE_RESOLUTION_TIME = Summary(
    "token_cache_resolution_seconds", "Time of lookups that missed something, computing it included"
)
CACHE_ERRORS = Counter("token_cache_redis_errors", "Failed calls to the cache")
CACHE_QUERIES = Counter("token_cache_queries", "Answered questions")
CACHE_QUERY_HITS = Counter("token_cache_query_hits", "Answered questions all of whose passages came from the cache")
COVERAGE = Gauge("forefill_coverage", "Served passages that have an entry, share", ["corpus", "spec"])
CACHING_OFF = Gauge("forefill_caching_off", "1 where an audit switched caching off", ["corpus", "spec"])
QUEUE_DEPTH = Gauge("forefill_queue_depth", "Pending jobs", ["queue"])
QUEUE_OLDEST_AGE = Gauge(
    "forefill_queue_oldest_age_seconds", "Age of the oldest pending job that is due or was tried", ["queue"]
)
FILL_LAG = Histogram(
    "forefill_fill_lag_seconds",
    "Time from a change being accepted to it being served",
    buckets=(0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200),
)
JOBS = Counter("forefill_jobs", "Finished attempts of jobs", ["kind", "outcome"])
FENCE_REJECTIONS = Counter("forefill_fence_rejections", "Writes refused because the work had a newer owner")
EXACTNESS_CHECKS = Counter(
    "forefill_exactness_checks",
    "Assembled prompts compared with the reference",
    ["outcome"],  # equal | different | skipped | failed
)
TWIN_CHECKS = Counter(
    "forefill_twin_checks",
    "Comparisons of a fast tokenizer with its reference",
    ["outcome"],  # at start: accepted | refused; afterwards: same | differs
)
GENERATIONS = Counter("forefill_generations", "Answers asked of an engine", ["engine", "outcome"])
GENERATION_FIRST_TOKEN = Histogram(
    "forefill_generation_first_token_seconds",
    "Time from a prompt being sent to the first part of its streamed answer",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
GENERATION_TOKENS = Counter("forefill_generation_tokens", "Tokens of prompts and answers, as engines count", ["part"])
HASH_MISMATCHES = Counter("forefill_hash_mismatches", "Search hits whose text did not hash to their passage key")

GAUGES = (CACHE_HIT_RATE, COVERAGE, CACHING_OFF, QUEUE_DEPTH, QUEUE_OLDEST_AGE)
"""All gauges: each says how things stand as a whole, so of several processes the one that is asked says it."""

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Names the folder with a file of counts per process; prometheus_client reads it when it is imported."""

_HOST = "127.0.0.1"


class SharedCounts(Collector):
    """Counters and histograms of all processes that share a folder, those that ended included; no gauges."""

    def __init__(self, folder: Path) -> None:
        self._all = MultiProcessCollector(CollectorRegistry(), path=str(folder))  # type: ignore[no-untyped-call]  # as published

    def collect(self) -> Iterator[Metric]:
        """Sum the files of the folder."""
        return (metric for metric in self._all.collect() if metric.type != "gauge")  # type: ignore[no-untyped-call]  # the same

    def totals(self) -> dict[tuple[str, ...], float]:
        """Return every sample by its name and the values of its labels."""
        samples = (sample for metric in self.collect() for sample in metric.samples)
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


class SharedMetrics(Collector):
    """What one of several processes exports for all: their counts, and the gauges as itself has just set them."""

    def __init__(self, folder: Path) -> None:
        self._counts = SharedCounts(folder)

    def collect(self) -> Iterator[Metric]:
        """Sum the files of the folder, and add this process' gauges."""
        yield from self._counts.collect()
        for gauge in GAUGES:
            yield from gauge.collect()


def shared_folder() -> Path | None:
    """Return where this process and others leave their counts, None for a process that counts in memory."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return Path(folder) if folder else None


def serve_metrics(port: int) -> None:
    """Answer `/metrics` on loopback for the rest of this process' life; 0 does nothing.

    The folder of the counts must have been named before this process imported prometheus_client; `forefill worker` and
    `forefill up` do so.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not port or not folder:
        return
    registry = CollectorRegistry()
    registry.register(SharedCounts(Path(folder)))
    try:
        start_http_server(port, addr=_HOST, registry=registry)
    except OSError as error:
        _log.error("worker.metrics_not_served", port=port, error=str(error))  # the work is worth more than its figures


def remove_counts() -> None:
    """Remove the folder of the counts, when the worker ends."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        shutil.rmtree(folder, ignore_errors=True)
