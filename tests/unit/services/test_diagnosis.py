"""What the checks make of facts."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pipeline.jobs.store import QueueStatus
from pipeline.retrieval.memory import MemoryVectorIndex
from pipeline.retrieval.vector_index import Point
from pipeline.services.diagnosis import Level, working
from pipeline.services.diagnosis.index import try_fence
from pipeline.services.diagnosis.redis_servers import RedisServer, check_broker, check_cache
from pipeline.services.diagnosis.working import check_fast_tokenizer, check_queue
from pipeline.settings import Settings

SOUND = RedisServer(
    run_id="a",
    version="9",
    eviction_policy="noeviction",
    max_bytes=0,
    used_bytes=1,
    evicted_keys=0,
    is_append_only=True,
)


@pytest.mark.parametrize(
    ("policy", "max_bytes", "level"),
    [
        ("noeviction", 0, Level.OK),
        ("noeviction", 100, Level.OK),
        ("allkeys-lru", 0, Level.WARN),
        ("allkeys-lru", 100, Level.FAIL),
        ("volatile-lru", 100, Level.FAIL),
    ],
)
def test_a_broker_must_not_evict(policy: str, max_bytes: int, level: Level) -> None:
    assert check_broker(replace(SOUND, eviction_policy=policy, max_bytes=max_bytes)).level is level


def test_a_cache_that_drops_or_forgets_is_warned_about() -> None:
    assert [finding.level for finding in check_cache(SOUND)] == [Level.OK]
    weak = replace(SOUND, eviction_policy="allkeys-lfu", max_bytes=100, evicted_keys=3, is_append_only=False)
    findings = list(check_cache(weak))
    assert [finding.level for finding in findings] == [Level.WARN] * 3
    assert all(finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("policy", "used_bytes", "level"),
    [
        ("noeviction", 900, Level.OK),
        ("noeviction", 950, Level.WARN),
        ("noeviction", 995, Level.FAIL),
        ("volatile-ttl", 1000, Level.FAIL),
    ],
)
def test_a_cache_that_is_full_and_drops_nothing_holds_changes_up(policy: str, used_bytes: int, level: Level) -> None:
    (finding,) = check_cache(replace(SOUND, eviction_policy=policy, max_bytes=1000, used_bytes=used_bytes))
    assert finding.level is level
    assert ("changes wait" in finding.message) is (level is not Level.OK)


def test_a_queue_needs_a_worker_and_must_move() -> None:
    moving = QueueStatus("bulk", depth=3, running=2, oldest_age_s=1.0, overdue_s=1.0, workers=2)
    assert check_queue(moving).level is Level.OK
    assert check_queue(replace(moving, oldest_age_s=1000.0)).level is Level.WARN
    idle = check_queue(replace(moving, workers=0))
    assert idle.level is Level.FAIL
    assert idle.remedy == "start `forefill worker --queues bulk`"


def test_an_index_that_refuses_late_writers_passes_and_keeps_no_trace() -> None:
    index = MemoryVectorIndex()
    assert [finding.level for finding in try_fence(index)] == [Level.OK]


class Careless(MemoryVectorIndex):
    """Takes every write, as a server does that does not know conditional updates."""

    def upsert(self, name: str, points: Sequence[Point]) -> None:
        super().upsert(name, [replace(point, generation=point.generation + 10) for point in points])


def test_an_index_that_takes_late_writers_fails() -> None:
    (finding,) = try_fence(Careless())
    assert finding.level is Level.FAIL
    assert "late writer" in finding.message


def test_doctor_says_what_workers_tokenize_with(monkeypatch: pytest.MonkeyPatch) -> None:
    on, off = Settings(), Settings.model_validate({"fast_tokenizer": "off"})
    assert "switched off" in check_fast_tokenizer(off).message
    monkeypatch.setattr(working, "find_spec", lambda _name: None)
    assert "not installed" in check_fast_tokenizer(on).message
    monkeypatch.setattr(working, "find_spec", lambda name: name)
    assert "use gigatoken" in check_fast_tokenizer(on).message
