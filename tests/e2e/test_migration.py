"""A corpus moves to another spec while it is asked and changed: no query misses, and none sees a mixture."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from tests.e2e.conftest import POSTGRES_WHEN_THERE_IS_TIME
from tests.support import sample
from tests.support.polling import eventually
from tests.support.readers import AskingThreads
from tests.support.stack import Stack
from tests.unit.tokenizers.reference import official

CORPUS = "docs"
OLD, NEW = "o200k_base/plain", "cl100k_base/plain"
FOLLOWED_S = 5.0


@dataclass
class Answers:
    """What readers were told, by spec."""

    queries: dict[str, int] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Questions whose ids are not those of the spec that the answer names."""


class Readers(AskingThreads):
    """Threads that ask with texts, and compare every answer with the tokenizer of the spec it names."""

    def __init__(self, url: str, questions: Sequence[str], *, count: int) -> None:
        self.answers = Answers()
        self._lock = threading.Lock()
        super().__init__(url, questions, count=count)

    def stop(self) -> Answers:
        self.end()
        return self.answers

    def ask(self, api: httpx.Client, query: str) -> None:
        body = {"corpus": CORPUS, "query": query, "top_k": 8, "include_text": True}
        response = api.post("/v1/retrieve", json=body)
        assert response.status_code == 200, response.text
        answer = response.json()
        spec = answer["metadata"]["spec"]
        expected = official(spec.partition("/")[0]).encode_ordinary(answer["prompt_text"])
        with self._lock:
            self.answers.queries[spec] = self.answers.queries.get(spec, 0) + 1
            if not answer["metadata"]["cache_hit"]:
                self.answers.misses.append(query)
            if answer["token_ids"] != expected:
                self.answers.wrong.append(query)


@pytest.mark.timeout(300)
@POSTGRES_WHEN_THERE_IS_TIME
def test_a_corpus_moves_to_another_spec_and_back_under_readers_and_writers(stack: Stack) -> None:
    stack.start_worker()
    stack.start_dispatcher()
    stack.start_api()
    stack.forefill("ingest", str(sample.DOCUMENTS), "--corpus", CORPUS, "--wait", "--json")
    stack.forefill("spec", "add", "--encoding", "cl100k_base", "--frame", "plain", "--contexts", "1000", "--json")
    questions = [question["text"] for question in sample.questions()]
    readers = Readers(stack.api_url, questions, count=4)
    with httpx.Client(base_url=stack.api_url, timeout=60) as api:
        eventually(lambda: readers.answers.queries.get(OLD, 0) > 20, describe="readers of the old spec")
        built = stack.forefill("spec", "build", NEW, "--corpus", CORPUS, "--wait", "--json")
        assert (built["kind"], built["state"]) == ("backfill", "succeeded")
        _edit(api, stack, 10)
        activated = api.post(f"/v1/specs/{NEW}/activate", json={"corpus": CORPUS})
        assert activated.status_code == 200, activated.text
        _follow(readers, NEW)
        _edit(api, stack, 10)
        back = api.post(f"/v1/specs/{NEW}/rollback")
        assert back.json()["corpora"] == [{"corpus": CORPUS, "spec": OLD, "missing": {
            "documents": 0, "dead": 0, "examples": []}}]  # fmt: skip
        _follow(readers, OLD)
        seen = readers.stop()
        assert api.get(f"/v1/specs/{NEW}").json()["coverage"] == {CORPUS: 1.0}
    assert seen.misses == []
    assert seen.wrong == []
    assert min(seen.queries.values()) > 10
    dropped = stack.forefill("spec", "drop", NEW, "--json")
    assert (dropped["status"], dropped["corpora"]) == ("dropped", [CORPUS])


def _follow(readers: Readers, spec: str) -> None:
    """Wait until readers are told the ids of a spec."""
    began, before = time.monotonic(), readers.answers.queries.get(spec, 0)
    eventually(
        lambda: readers.answers.queries.get(spec, 0) > before + 20,
        timeout_s=30,
        describe=f"readers that follow to {spec}",
    )
    assert time.monotonic() - began < FOLLOWED_S + 20


def _edit(api: httpx.Client, stack: Stack, count: int) -> None:
    """Change documents and wait until they are served."""
    documents = [{"id": each["id"], "text": f"{each['text']}\n\nEdited."} for each in sample.documents()[:count]]
    answer = api.put(f"/v1/corpora/{CORPUS}/documents", json={"documents": documents})
    assert answer.status_code == 202, answer.text
    assert stack.wait_for_run(answer.json()["run_id"]).state == "succeeded"
