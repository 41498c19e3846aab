from api.status_page import StatusView, render_status
from pipeline.jobs.store import QueueStatus
from pipeline.services.inspection import Coverage
from pipeline.token_cache import LookupStats

NOTHING = LookupStats(
    hits=0,
    misses=0,
    misses_by_reason={},
    errors=0,
    hit_rate=0.0,
    queries=0,
    query_hits=0,
    avg_hit_latency_ms=0.0,
    avg_miss_latency_ms=0.0,
    l1_entries=0,
    l1_bytes=0,
)


def test_every_value_is_escaped() -> None:
    evil = "<script>alert('x')</script>"
    view = StatusView(
        coverage=[Coverage(evil, evil, passages=2, covered=1, tokens=1234)],
        queues=[QueueStatus(evil, depth=1, running=0, oldest_age_s=1.5, overdue_s=1.5, workers=2)],
        problem=evil,
    )
    page = render_status(view, lookups=NOTHING)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4
    assert "50.0 %" in page
    assert "1,234" in page
