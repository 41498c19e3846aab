"""Statistics of several processes, from what all their metrics say together."""

from pipeline.token_cache import MissReason
from pipeline.token_cache.shared_stats import lookups_since

BEFORE = {
    "token_cache_hits_total": 100.0,
    "token_cache_misses_total absent": 10.0,
    "token_cache_all_hit_lookup_seconds_count": 20.0,
    "token_cache_all_hit_lookup_seconds_sum": 1.0,
}
NOW = {
    "token_cache_hits_total": 107.0,
    "token_cache_misses_total absent": 10.0,
    "token_cache_misses_total corrupt": 1.0,
    "token_cache_redis_errors_total": 2.0,
    "token_cache_queries_total": 5.0,
    "token_cache_query_hits_total": 3.0,
    "token_cache_all_hit_lookup_seconds_count": 24.0,
    "token_cache_all_hit_lookup_seconds_sum": 1.008,
    "token_cache_resolution_seconds_count": 1.0,
    "token_cache_resolution_seconds_sum": 0.25,
}


def test_what_was_counted_before_a_reset_is_left_out() -> None:
    stats = lookups_since(BEFORE, NOW, l1_entries=3, l1_bytes=4)
    assert (stats.hits, stats.misses, stats.errors, stats.hit_rate) == (7, 1, 2, 87.5)
    assert (stats.queries, stats.query_hits) == (5, 3)
    assert stats.misses_by_reason == {MissReason.ABSENT: 0, MissReason.CORRUPT: 1, MissReason.UNAVAILABLE: 0}
    assert round(stats.avg_hit_latency_ms, 6) == 2
    assert stats.avg_miss_latency_ms == 250
    assert (stats.l1_entries, stats.l1_bytes) == (3, 4)


def test_nothing_counted_is_nothing_said() -> None:
    stats = lookups_since(NOW, NOW, l1_entries=0, l1_bytes=0)
    assert (stats.hits, stats.misses, stats.hit_rate) == (0, 0, 0)
    assert (stats.avg_hit_latency_ms, stats.avg_miss_latency_ms) == (0, 0)
