"""A nightly run over 20,000 passages through real processes: stopped, resumed, cancelled, and overtaken by updates."""

import statistics
import time

import httpx
import pytest

from tests.support.polling import eventually
from tests.support.stack import Stack

CORPUS = "night"
DOCUMENTS = 2_000
PASSAGES = 10
UPDATES = 50

pytestmark = pytest.mark.timeout(300)


def _text(number: int, edition: int = 0) -> str:
    """Return a text of ten passages, distinct from any other's."""
    paragraph = "Tokens of night {} edition {} part {}: " + "the same words make every passage long enough. " * 22
    return "\n\n".join(paragraph.format(number, edition, part) for part in range(PASSAGES))


@pytest.fixture
def filled(sqlite_stack: Stack) -> Stack:
    """A corpus of 20,000 served passages; interactive and bulk workers apart, as `forefill up` runs them."""
    stack = sqlite_stack
    stack.start_worker(queues="interactive", name="interactive")
    stack.start_dispatcher()
    stack.start_api()
    filler = stack.start_worker(queues="bulk,maintenance", name="filler")
    with httpx.Client(base_url=stack.api_url, timeout=60) as api:
        runs = [_put(api, range(start, start + 250)) for start in range(0, DOCUMENTS, 250)]
    for run_id in runs:
        assert stack.wait_for_run(run_id, timeout_s=240).state == "succeeded"
    filler.terminate()
    return stack


def _put(api: httpx.Client, numbers: range, edition: int = 0) -> str:
    documents = [{"id": f"d{number}", "text": _text(number, edition)} for number in numbers]
    answer = api.put(f"/v1/corpora/{CORPUS}/documents", json={"documents": documents})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def _start(api: httpx.Client, **options: object) -> str:
    answer = api.post("/v1/runs", json={"kind": "retokenize", "corpus": CORPUS, "options": options})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def _totals(api: httpx.Client, run_id: str) -> dict[str, int]:
    run = api.get(f"/v1/runs/{run_id}").json()
    totals: dict[str, int] = run["totals"]
    assert totals["documents"] == sum(count for name, count in totals.items() if name != "documents")
    return totals


def _finished(api: httpx.Client, run_id: str) -> int:
    totals = _totals(api, run_id)
    return totals["documents"] - totals["pending"]


def test_a_night_is_paused_resumed_cancelled_and_overtaken_by_updates(filled: Stack) -> None:
    stack = filled
    doomed = stack.start_worker(queues="bulk,maintenance", name="doomed")
    with httpx.Client(base_url=stack.api_url, timeout=60) as api:
        run_id = _start(api)
        assert _totals(api, run_id)["documents"] == DOCUMENTS
        eventually(lambda: _finished(api, run_id) > 0, timeout_s=60, describe="the first slice")
        assert api.post(f"/v1/runs/{run_id}/pause").json()["state"] == "paused"
        _stands_still(api, run_id)
        assert 0 < _finished(api, run_id) < DOCUMENTS
        assert api.post(f"/v1/runs/{run_id}/resume").json()["state"] == "running"
        eventually(lambda: _finished(api, run_id) > DOCUMENTS // 4, timeout_s=60, describe="a quarter of it")
        doomed.kill()  # in the middle of a slice; its lease has to end before another takes over
        stack.start_worker(queues="bulk,maintenance", name="heir")
        lags = [_update(stack, api, number) for number in range(UPDATES)]
        assert stack.wait_for_run(run_id, timeout_s=240).state == "succeeded"
        totals = _totals(api, run_id)
        assert totals["unchanged"] + totals["superseded"] == DOCUMENTS
        assert totals["superseded"] <= UPDATES
        assert statistics.median(lags) < 2.0, lags

        second = _start(api)
        eventually(lambda: _finished(api, second) > 0, timeout_s=60, describe="the first slice")
        cancelled = api.post(f"/v1/runs/{second}/cancel").json()
        assert cancelled["state"] == "cancelled"
        assert cancelled["totals"]["cancelled"] > 0
        _stands_still(api, second)
        assert api.get(f"/v1/runs/{second}").json() == cancelled
        quick = stack.wait_for_run(_start(api, only_changed=True))
        assert (quick.state, quick.totals["unchanged"]) == ("succeeded", DOCUMENTS)
        assert api.get("/v1/stats").json()["coverage"] == {CORPUS: {"o200k_base/plain": 1.0}}


def _stands_still(api: httpx.Client, run_id: str) -> None:
    """Assert that after the slice in hand nothing is finished any more, for as long as several slices take."""
    previous, since = _finished(api, run_id), time.monotonic()

    def still() -> bool:
        nonlocal previous, since
        if (now := _finished(api, run_id)) != previous:
            previous, since = now, time.monotonic()
        return time.monotonic() - since > 3.0

    eventually(still, timeout_s=30, describe="a standstill")


def _update(stack: Stack, api: httpx.Client, number: int) -> float:
    """Change one document; return seconds until search finds the change."""
    began = time.perf_counter()
    stack.wait_for_run(_put(api, range(number, number + 1), edition=1))
    return time.perf_counter() - began
