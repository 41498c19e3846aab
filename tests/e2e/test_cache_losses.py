"""The cache is flushed, replaced, or hangs under load: answers stay exact, and coverage comes back by itself."""

import shutil
import time
from collections.abc import Callable

import httpx
import pytest

from pipeline.jobs.installation import get_fact
from pipeline.services.cache_epoch import CACHE_EPOCH
from tests.e2e.conftest import POSTGRES_WHEN_THERE_IS_TIME
from tests.support import sample
from tests.support.oracle import Published, check_published
from tests.support.polling import eventually
from tests.support.stack import Stack
from tests.unit.tokenizers.reference import official

CORPUS = "docs"
SPEC = "o200k_base/plain"
NOTICED_S = 10.0


def _flush(stack: Stack) -> None:
    stack.cache.flush()


def _replace(stack: Stack) -> None:
    """Bring the server back without its file."""
    stack.cache.stop()
    shutil.rmtree(stack.cache.folder / "appendonlydir")
    stack.cache.start()


@POSTGRES_WHEN_THERE_IS_TIME
@pytest.mark.parametrize("lose", [_flush, _replace])
def test_a_lost_cache_is_filled_again_while_every_answer_is_exact(stack: Stack, lose: Callable[[Stack], None]) -> None:
    _serve(stack, dispatchers=2)
    questions = [question["text"] for question in sample.questions()]
    readers = stack.start_readers(CORPUS, questions, count=2)
    with httpx.Client(base_url=stack.api_url, timeout=30) as api:
        assert _coverage(api) == 1.0
        epoch = _epoch(stack)
        lose(stack)
        lost_at = time.monotonic()
        turn = 0
        while _epoch(stack) == epoch:
            turn += 1
            _ask(api, questions[turn % len(questions)])
            assert time.monotonic() - lost_at < NOTICED_S, "nobody noticed"
        while _coverage(api) != 1.0:
            turn += 1
            _ask(api, questions[turn % len(questions)])
            assert time.monotonic() - lost_at < 60, "nobody filled it again"
        for question in questions:
            assert {passage["source"] for passage in _ask(api, question)} <= {"l1", "l2"}
    seen = readers.stop()
    assert seen.stale == []
    assert seen.queries > 20
    check_published(stack, CORPUS, {d["id"]: Published(d["text"], 1) for d in sample.documents()})


def test_a_cache_that_hangs_is_no_lost_one_and_jobs_are_dispatched_all_the_while(sqlite_stack: Stack) -> None:
    stack = sqlite_stack
    _serve(stack, dispatchers=1)
    epoch = _epoch(stack)
    stack.cache.pause()
    with httpx.Client(base_url=stack.api_url, timeout=30) as api:
        deleted = [document["id"] for document in sample.documents()[:3]]
        answer = api.post(f"/v1/corpora/{CORPUS}/documents/delete", json={"ids": deleted}).json()
        assert stack.wait_for_run(answer["run_id"], timeout_s=30).state == "succeeded"
        _ask(api, "How do I open a file?")
        stack.cache.resume()
        eventually(lambda: api.get("/v1/stats").json()["cache_size_mb"] is not None, describe="the cache")
        assert _coverage(api) == 1.0
    assert _epoch(stack) == epoch
    with stack.database.read() as connection:
        runs = connection.exec_driver_sql("SELECT kind FROM runs").scalars().all()
    assert "backfill" not in runs


def test_clearing_by_command_fills_it_again(sqlite_stack: Stack) -> None:
    stack = sqlite_stack
    _serve(stack, dispatchers=1)
    with stack.cache.client() as cache:
        cache.set("someone:else", "1")
        cleared = stack.forefill("cache", "clear", "--yes", "--json")
        assert cleared["cleared"] > 600
        assert cache.get("someone:else") == b"1"
    (run_id,) = cleared["runs"]
    assert stack.wait_for_run(run_id).totals["done"] == len(sample.documents())
    with httpx.Client(base_url=stack.api_url, timeout=30) as api:
        assert _coverage(api) == 1.0
    check_published(stack, CORPUS, {d["id"]: Published(d["text"], 1) for d in sample.documents()})


def _serve(stack: Stack, *, dispatchers: int) -> None:
    stack.start_worker()
    for _ in range(dispatchers):
        stack.start_dispatcher()
    stack.start_api()
    stack.forefill("ingest", str(sample.DOCUMENTS), "--corpus", CORPUS, "--wait", "--json")


def _coverage(api: httpx.Client) -> float | None:
    share: float | None = api.get("/v1/stats").json()["coverage"][CORPUS][SPEC]
    return share


def _epoch(stack: Stack) -> str | None:
    with stack.database.read() as connection:
        return get_fact(connection, CACHE_EPOCH)


def _ask(api: httpx.Client, query: str) -> list[dict[str, object]]:
    body = {"corpus": CORPUS, "query": query, "top_k": 5, "include_text": True}
    response = api.post("/v1/retrieve", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["token_ids"] == official("o200k_base").encode_ordinary(answer["prompt_text"])
    passages: list[dict[str, object]] = answer["passages"]
    return passages
