"""Counts of the lookups of several processes since their start or the last reset, whichever of them is asked.

Their metrics lie in files that all of them read. Metrics never go back, so a reset keeps what they were: the baseline,
a file beside them that is replaced as a whole.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from pipeline.telemetry.metrics import SharedCounts
from pipeline.token_cache.stats import LookupStatistics, LookupStats
from pipeline.token_cache.stores import MissReason

_BASELINE = "lookups-at-reset.json"

_HITS = "token_cache_hits_total"
_ERRORS = "token_cache_redis_errors_total"
_QUERIES = "token_cache_queries_total"
_QUERY_HITS = "token_cache_query_hits_total"
_MISSES = {reason: f"token_cache_misses_total {reason}" for reason in MissReason}
_ALL_HIT = "token_cache_all_hit_lookup_seconds"
_RESOLUTION = "token_cache_resolution_seconds"


@dataclass(frozen=True, slots=True)
class SharedStatistics:
    """`LookupStatistics` of all processes that leave their counts in one folder."""

    folder: Path
    """Lives as long as the processes' parent, so that what processes counted that ended stays counted."""
    own: LookupStatistics
    """Of this process: says what it holds in memory, which nobody else does."""

    def stats(self) -> LookupStats:
        """Return counts and means of all processes since the first began, or the last reset."""
        own = self.own.stats()
        return lookups_since(self._baseline(), self._totals(), l1_entries=own.l1_entries, l1_bytes=own.l1_bytes)

    def reset_stats(self) -> None:
        """Start counting anew, for all of them."""
        handle, draft = tempfile.mkstemp(dir=self.folder, prefix=f".{_BASELINE}.")
        with os.fdopen(handle, "wb") as file:
            file.write(orjson.dumps(self._totals()))
        Path(draft).replace(self.folder / _BASELINE)

    def _totals(self) -> dict[str, float]:
        totals = SharedCounts(self.folder).totals()
        return {" ".join(names): value for names, value in totals.items() if names[0].startswith("token_cache_")}

    def _baseline(self) -> dict[str, float]:
        try:
            baseline: dict[str, float] = orjson.loads((self.folder / _BASELINE).read_bytes())
        except FileNotFoundError:
            return {}
        return baseline


def lookups_since(
    before: Mapping[str, float], now: Mapping[str, float], *, l1_entries: int, l1_bytes: int
) -> LookupStats:
    """Return what was counted between two moments.

    Args:
        before: Samples of all metrics at the first, by name and label; what is not there was 0.
        now: Samples at the second.
        l1_entries: Taken as they are.
        l1_bytes: The same.
    """

    def count(name: str) -> float:
        return now.get(name, 0.0) - before.get(name, 0.0)

    def mean_ms(name: str) -> float:
        lookups = count(f"{name}_count")
        return 1000 * count(f"{name}_sum") / lookups if lookups else 0.0

    hits = round(count(_HITS))
    misses = {reason: round(count(name)) for reason, name in _MISSES.items()}
    passages = hits + sum(misses.values())
    return LookupStats(
        hits=hits,
        misses=sum(misses.values()),
        misses_by_reason=misses,
        errors=round(count(_ERRORS)),
        hit_rate=100 * hits / passages if passages else 0.0,
        queries=round(count(_QUERIES)),
        query_hits=round(count(_QUERY_HITS)),
        avg_hit_latency_ms=mean_ms(_ALL_HIT),
        avg_miss_latency_ms=mean_ms(_RESOLUTION),
        l1_entries=l1_entries,
        l1_bytes=l1_bytes,
    )
