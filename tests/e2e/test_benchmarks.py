"""The benchmark itself: every cheap row can be measured by the command that users type."""

import json
from pathlib import Path

import pytest

from tests.support.processes import Processes

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CHEAP = ("lookup", "memory", "scaling", "hit_rate", "retrieve")


def test_the_quick_benchmark_measures_every_cheap_row(tmp_path: Path) -> None:
    chosen = [part for name in CHEAP for part in ("--rows", name)]
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/nonexistent"}  # no apt: the sample stands in
    with Processes(tmp_path) as processes:
        done = processes.run_forefill("bench", "--quick", "--json", *chosen, env=environment, timeout_s=800)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["corpus"]["remark"].startswith("NOT distinct")
    rows = {row["key"]: row for row in found["rows"]}
    assert {"lookup.l1.mget", "hit_rate", "retrieve.rate", "retrieve.added_p99"} <= set(rows)
    assert [key for key, row in rows.items() if row["ours"] is None and key != "memory.bytes_per_token"] == []
    assert rows["hit_rate"]["ours"]["median"] == 100
