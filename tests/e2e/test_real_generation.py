"""Questions answered by a real engine: SmolLM2 behind llama.cpp gets exactly the ids, and stops when nobody listens."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import sample
from tests.support.llm import CONTEXT_TOKENS, Engine, smollm2_tokenizer_json
from tests.support.polling import eventually
from tests.support.processes import Processes
from tests.support.stack import Stack

CORPUS = "docs"
SPEC = "smollm2/chatml"


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="ff-gen-") as folder, Processes(Path(folder)) as processes:
        started = Engine(processes)
        yield started
        started.close()


def test_answers_are_the_engines_own_to_the_same_text(sqlite_stack: Stack, engine: Engine, tmp_path: Path) -> None:
    stack = sqlite_stack
    _fill(stack, tmp_path)
    stack.environment |= {"FOREFILL_ENGINE_KIND": "llamacpp", "FOREFILL_ENGINE_URL": engine.url}
    stack.start_api()
    question = sample.questions()[0]["text"]
    ask = {"corpus": CORPUS, "query": question, "max_tokens": 24, "temperature": 0, "return_token_ids": True}
    with httpx.Client(base_url=stack.api_url, timeout=120) as api:
        bounded = {**ask, "max_context_tokens": 600}
        found = api.post("/v1/retrieve", json=_without_generation(bounded)).json()
        answer = api.post("/v1/generate", json={**bounded, "include_text": True}).json()
        prompt = answer["prompt_token_ids"]
        assert prompt[: answer["context_tokens"]] == found["token_ids"]
        assert len(prompt) == answer["context_tokens"] + answer["query_tokens"] == answer["usage"]["prompt_tokens"]
        assert answer["cache_hit"] is True

        text = "".join(part.get("control", part.get("text")) for part in answer["prompt_segments"])
        by_text = engine.complete(f"{text}Question: {question}<|im_end|>\n<|im_start|>assistant\n", max_tokens=24)
        assert answer["response"] == by_text["content"] != ""
        assert answer["token_ids"] == by_text["tokens"]

        tokens, done = _streamed(api, bounded)
        assert "".join(data["text"] for data in tokens) == done["response"] == answer["response"]
        assert [each for data in tokens for each in data["token_ids"]] == done["token_ids"] == answer["token_ids"]
        assert done["usage"]["cached_tokens"] > 0

        most = CONTEXT_TOKENS - 400
        narrow = api.post("/v1/generate", json={**ask, "max_tokens": most, "stop": ["e", "a"]}).json()
        assert narrow["metadata"]["truncated"] is True
        assert len(narrow["prompt_token_ids"]) <= CONTEXT_TOKENS - most
        assert not set("ea") & set(narrow["response"])

        foreign = {**ask, "corpus": "other"}
        stack.forefill("corpus", "create", "other", "--json")
        refused = eventually(lambda: _status(api, foreign, other_than=404))
        assert refused is not None
        assert refused.status_code == 409
        assert "o200k_base/plain" in refused.json()["detail"]

        engine.close()
        down = api.post("/v1/generate", json=ask)
        assert (down.status_code, down.json()["service"]) == (503, "engine")


def _without_generation(body: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in body.items() if key not in {"max_tokens", "temperature", "return_token_ids"}}


def _status(api: httpx.Client, body: dict[str, Any], *, other_than: int) -> httpx.Response | None:
    response = api.post("/v1/generate", json=body)
    return None if response.status_code == other_than else response


def _streamed(api: httpx.Client, body: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    with api.stream("POST", "/v1/generate", json={**body, "stream": True}) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    found = [json.loads(line.removeprefix("data: ")) for line in lines]
    return found[:-1], found[-1]


def _fill(stack: Stack, folder: Path) -> None:
    """Add the engine's spec and ingest sample documents under it."""
    tokenizer = folder / "tokenizer.json"
    tokenizer.write_bytes(smollm2_tokenizer_json())
    named = ("--frame", "chatml", "--name", "smollm2", "--contexts", "1000")
    stack.forefill("spec", "add", "--tokenizer", str(tokenizer), *named, "--json")
    stack.forefill("corpus", "create", CORPUS, "--spec", SPEC, "--json")
    path = folder / "docs.jsonl"
    path.write_text("".join(json.dumps({"id": d["id"], "text": d["text"]}) + "\n" for d in sample.documents()[:120]))
    stack.start_worker()
    stack.start_dispatcher()
    stack.forefill("ingest", str(path), "--corpus", CORPUS, "--wait", "--json")
