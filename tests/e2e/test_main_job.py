"""The main job on real input: from an event to a cached answer, through real processes."""

import json
import time

import httpx

from pipeline.jobs.presence import list_workers
from tests.e2e.conftest import POSTGRES_WHEN_THERE_IS_TIME
from tests.support import sample
from tests.support.oracle import Published, check_published
from tests.support.polling import eventually
from tests.support.stack import Stack
from tests.unit.tokenizers.reference import official

CORPUS = "python-docs"


@POSTGRES_WHEN_THERE_IS_TIME
def test_the_sample_corpus_is_filled_ahead_of_time_and_every_question_hits_with_exact_ids(stack: Stack) -> None:
    stack.start_worker()
    stack.start_dispatcher()
    stack.start_api()

    first = stack.forefill("ingest", str(sample.DOCUMENTS), "--corpus", CORPUS, "--wait", "--json")
    assert first["totals"] == _totals(done=659)
    check_published(stack, CORPUS, {d["id"]: Published(d["text"], 1) for d in sample.documents()})
    with httpx.Client(base_url=stack.api_url, timeout=30) as api:
        assert api.get("/v1/stats").json()["coverage"] == {CORPUS: {"o200k_base/plain": 1.0}}
        relevant = [_ask(api, question["text"], question["relevant"]) for question in sample.questions()]
        assert len(relevant) == 168
        assert sum(relevant) >= 130
        stats = api.get("/v1/stats").json()
        assert (stats["misses"], stats["hit_rate"], stats["errors"]) == (0, 100.0, 0)

    jobs = _unfinished_jobs(stack)
    again = stack.forefill("ingest", str(sample.DOCUMENTS), "--corpus", CORPUS, "--wait", "--json")
    assert again["totals"] == _totals(unchanged=659)
    assert _unfinished_jobs(stack) == jobs == 0


def _ask(api: httpx.Client, query: str, relevant: list[str]) -> bool:
    """Ask once; assert cached passages and reference ids; return whether a relevant document was found."""
    body = {"corpus": CORPUS, "query": query, "top_k": 10, "include_text": True}
    answer = api.post("/v1/retrieve", json=body).json()
    assert {passage["source"] for passage in answer["passages"]} <= {"l1", "l2"}
    assert answer["metadata"]["cache_hit"] is True
    assert answer["metadata"]["doc_count"] == len(answer["passages"]) > 0
    assert answer["token_ids"] == official("o200k_base").encode_ordinary(answer["prompt_text"])
    assert answer["metadata"]["token_count"] == len(answer["token_ids"])
    return any(passage["document_id"] in relevant for passage in answer["passages"])


def _totals(**outcomes: int) -> dict[str, int]:
    names = ("pending", "done", "unchanged", "superseded", "dead", "cancelled")
    return {"documents": sum(outcomes.values()), **{name: outcomes.get(name, 0) for name in names}}


def _unfinished_jobs(stack: Stack) -> int:
    with stack.database.read() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM jobs WHERE finished_at IS NULL").scalar_one())


def test_edits_and_deletions_show_while_readers_never_miss(stack: Stack) -> None:
    stack.start_worker()
    stack.start_dispatcher()
    stack.start_api()
    with httpx.Client(base_url=stack.api_url, timeout=30) as api:
        documents = {d["id"]: d["text"] for d in sample.documents()[:120]}
        _put(api, documents)
        edited = dict(list(documents.items())[:40])
        deleted = list(documents)[40:60]
        readers = stack.start_readers(CORPUS, [q["text"] for q in sample.questions()][:60], count=4)
        for number in range(1, 4):
            changed = {name: f"Edition {number}.\n\n{text}" for name, text in edited.items()}
            documents |= changed
            _put(api, changed)
            readers.expect(changed)
        answer = api.post(f"/v1/corpora/{CORPUS}/documents/delete", json={"ids": deleted}).json()
        stack.wait_for_run(answer["run_id"])
        readers.expect_gone(deleted)
        for name in deleted:
            documents.pop(name)
            assert api.get(f"/v1/corpora/{CORPUS}/documents/{name}").status_code == 404
        seen = readers.stop()
    assert seen.queries > 100
    assert seen.misses == 0
    assert seen.stale == []
    generations = {name: 4 if name in edited else 1 for name in documents}
    check_published(stack, CORPUS, {name: Published(text, generations[name]) for name, text in documents.items()})


def _put(api: httpx.Client, documents: dict[str, str]) -> None:
    body = {"documents": [{"id": name, "text": text} for name, text in documents.items()]}
    answer = api.put(f"/v1/corpora/{CORPUS}/documents", json=body)
    assert answer.status_code == 202, answer.text
    run_id = answer.json()["run_id"]
    deadline = time.monotonic() + 60
    while (run := api.get(f"/v1/runs/{run_id}").json())["state"] not in ("succeeded", "partial"):
        assert time.monotonic() < deadline, json.dumps(run)
    assert run["totals"]["done"] == len(documents)


def test_a_worker_that_was_stopped_is_listed_no_more(sqlite_stack: Stack) -> None:
    worker = sqlite_stack.start_worker()
    eventually(lambda: _workers(sqlite_stack) == 1, describe="the worker in SQL")
    worker.terminate()
    assert _workers(sqlite_stack) == 0


def _workers(stack: Stack) -> int:
    with stack.database.read() as connection:
        return len(list_workers(connection))
