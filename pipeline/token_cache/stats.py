"""Counts of lookups since the start or the last reset, beside the metrics that never reset."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.telemetry import metrics
from pipeline.token_cache.stores import MissReason

_MISSES = {reason: metrics.CACHE_MISSES.labels(reason=reason.value) for reason in MissReason}


@dataclass(frozen=True, slots=True)
class LookupStats:
    """A snapshot; passages are counted, not queries."""

    hits: int
    """Passages found, in memory or in Redis."""
    misses: int
    """Passages not found."""
    misses_by_reason: dict[MissReason, int]
    """The same, by reason."""
    errors: int
    """Failed calls to the cache."""
    hit_rate: float
    """Percent; 0 before the first lookup."""
    queries: int
    """Answered questions, those without a lookup included."""
    query_hits: int
    """Those all of whose passages came from the cache, at least one."""
    avg_hit_latency_ms: float
    """Mean time of lookups without a miss."""
    avg_miss_latency_ms: float
    """Mean time of lookups with one, computing what was missing included."""
    l1_entries: int
    """Entries held by the process that says this."""
    l1_bytes: int
    """What they occupy."""


class LookupStatistics(Protocol):
    """Says how lookups went; may read files, so it is not asked on an event loop."""

    def stats(self) -> LookupStats:
        """Return counts and means since the start or the last reset."""

    def reset_stats(self) -> None:
        """Start counting anew; Prometheus counters go on."""


@dataclass(slots=True)
class _Latency:
    count: int = 0
    total_s: float = 0.0

    def add(self, elapsed_s: float) -> None:
        self.count += 1
        self.total_s += elapsed_s

    @property
    def mean_ms(self) -> float:
        return 1000 * self.total_s / self.count if self.count else 0.0


@dataclass(slots=True)
class LookupCounter:
    """Mutable counts of one `TokenCache`; feeds the metrics, too. For one event loop."""

    hits: int = 0
    errors: int = 0
    queries: int = 0
    query_hits: int = 0
    misses: dict[MissReason, int] = field(default_factory=lambda: dict.fromkeys(MissReason, 0))
    _hit_latency: _Latency = field(default_factory=_Latency)
    _miss_latency: _Latency = field(default_factory=_Latency)
    _told_hit_rate: float = -1.0

    def record_lookup(self, *, hits: int, misses: Sequence[MissReason], elapsed_s: float) -> None:
        """Count one finished lookup."""
        self.hits += hits
        if hits:
            metrics.CACHE_HITS.inc(hits)
        for reason in misses:
            self.misses[reason] += 1
            _MISSES[reason].inc()
        if not misses:
            self._hit_latency.add(elapsed_s)
            metrics.CACHE_ALL_HIT_TIME.observe(elapsed_s)
        metrics.CACHE_HIT_LATENCY.observe(elapsed_s)
        if (hit_rate := self.hit_rate) != self._told_hit_rate:
            self._told_hit_rate = hit_rate
            metrics.CACHE_HIT_RATE.set(hit_rate)

    def record_resolved(self, *, elapsed_s: float) -> None:
        """Count the whole time of a lookup whose misses have been computed."""
        self._miss_latency.add(elapsed_s)
        metrics.CACHE_RESOLUTION_TIME.observe(elapsed_s)

    def record_query(self, *, is_hit: bool) -> None:
        """Count one answered question."""
        self.queries += 1
        metrics.CACHE_QUERIES.inc()
        if is_hit:
            self.query_hits += 1
            metrics.CACHE_QUERY_HITS.inc()

    def record_error(self) -> None:
        """Count one failed call."""
        self.errors += 1
        metrics.CACHE_ERRORS.inc()

    @property
    def hit_rate(self) -> float:
        """Percent of passages found."""
        total = self.hits + sum(self.misses.values())
        return 100 * self.hits / total if total else 0.0

    def snapshot(self, *, l1_entries: int, l1_bytes: int) -> LookupStats:
        """Return the counts as a value."""
        return LookupStats(
            hits=self.hits,
            misses=sum(self.misses.values()),
            misses_by_reason=dict(self.misses),
            errors=self.errors,
            hit_rate=self.hit_rate,
            queries=self.queries,
            query_hits=self.query_hits,
            avg_hit_latency_ms=self._hit_latency.mean_ms,
            avg_miss_latency_ms=self._miss_latency.mean_ms,
            l1_entries=l1_entries,
            l1_bytes=l1_bytes,
        )
