"""Ingesting the sample corpus, asking a dozen of its questions twice, and the table of what that took."""

import time
from datetime import datetime
from typing import Any

from demo.client import Answer
from demo.measurements import Measurements, Round, build_table
from demo.sample import CORPUS, DOCUMENTS, DOCUMENTS_SHOWN, Question
from demo.scene import Scene
from demo.tokenizing import load_rivals, time_rival


def ingest(scene: Scene) -> None:
    """Ingest the sample corpus by the command; it shows its own progress."""
    scene.screen.step(f"Ingest {len(scene.texts):,} documents: tokenized before anyone asks")
    scene.screen.command(f"forefill ingest {DOCUMENTS_SHOWN} --corpus {CORPUS} --wait")
    began = time.monotonic()
    run = scene.stack.forefill("ingest", str(DOCUMENTS), "--corpus", CORPUS, "--wait")
    spent_s = time.monotonic() - began
    scene.checks.equal(
        f"{run['totals']['done']:,} documents are served, {run['tokens']:,} token ids wait in the cache "
        f"(run {run_seconds(run):.1f} s, command {spent_s:.1f} s)",
        expected={"state": "succeeded", "documents": len(scene.texts), "done": len(scene.texts)},
        seen={"state": run["state"], "documents": run["totals"]["documents"], "done": run["totals"]["done"]},
    )


def ask(scene: Scene) -> list[tuple[Question, Answer]]:
    """Ask every question twice, show the table, and return the questions with their first answers."""
    scene.screen.step(f"Ask {len(scene.questions)} questions; tiktoken checks every id")
    first = _ask_once(scene, show=True)
    again = _ask_once(scene, show=False)
    check_answers(scene, [*first.answers, *again.answers], "asked twice")
    coverage = scene.client.stats()["coverage"].get(CORPUS, {})
    scene.checks.equal("coverage is 100 %", expected=[1.0], seen=list(coverage.values()))
    pairs = list(zip(scene.questions, first.answers, strict=True))
    found = sum(map(_found, pairs))
    _check_rounds(scene, first, again, found=found)
    _measure(scene, first, again, coverage, found)
    return pairs


def _check_rounds(scene: Scene, first: Round, again: Round, *, found: int) -> None:
    scene.checks.equal(
        f"the first question of all, {first.first_at - scene.began:.1f} s after `forefill up` was started, found "
        "its ids in the cache",
        expected=True,
        seen=first.answers[0].all_hit,
    )
    scene.checks.equal(
        "the hit rate was 100 % both times", expected=[100.0, 100.0], seen=[first.hit_rate, again.hit_rate]
    )
    scene.checks.holds(
        f"a document that answers it is among the five passages for {found} of {len(first.answers)} questions",
        held=2 * found > len(first.answers),
        expected="most of them",
        seen=str(found),
    )


def check_answers(scene: Scene, answers: list[Answer], when: str) -> None:
    """Claim that answers are exact and came from the cache."""
    exact = sum(map(scene.is_exact, answers))
    scene.checks.equal(
        f"{exact} of {len(answers)} answers have tiktoken's ids for the whole prompt, {when}",
        expected=len(answers),
        seen=exact,
    )
    sources = sorted({source for answer in answers for source in answer.sources})
    scene.checks.holds(
        "every passage's ids came from the cache",
        held=all(answer.all_hit for answer in answers),
        expected="l1 and l2 only (memory and Redis)",
        seen=", ".join(sources) or "no passages",
    )


def run_seconds(run: dict[str, Any]) -> float:
    """Return how long a run took from being accepted to its end."""
    created, finished = (datetime.fromisoformat(run[name]) for name in ("created_at", "finished_at"))
    return (finished - created).total_seconds()


def _ask_once(scene: Scene, *, show: bool) -> Round:
    scene.client.reset_stats()
    answers: list[Answer] = []
    first_at = 0.0
    for question in scene.questions:
        answers.append(answer := scene.client.retrieve(question.text))
        first_at = first_at or time.monotonic()
        if show:
            scene.screen.line(_describe(question, answer))
    stats = scene.client.stats()
    return Round(answers, first_at=first_at, hit_rate=stats["hit_rate"], hits=stats["hits"], misses=stats["misses"])


def _describe(question: Question, answer: Answer) -> str:
    best = next(iter(answer.generations), "nothing")
    return f"{answer.latency_ms:6.1f} ms  {len(answer.token_ids):5,} ids  {best:22}  {question.text}"


def _found(pair: tuple[Question, Answer]) -> bool:
    question, answer = pair
    return not question.relevant.isdisjoint(answer.generations)


def _measure(scene: Scene, first: Round, again: Round, coverage: dict[str, float], found: int) -> None:
    prompts = [(answer.prompt_text, answer.token_ids) for answer in first.answers]
    rivals = load_rivals(scene.folder, scene.judge)
    documents = scene.client.documents()
    measured = Measurements(
        coverage=min(coverage.values(), default=0.0),
        spec=", ".join(coverage),
        documents=len(documents),
        passages=sum(len(document["passages"]) for document in documents),
        relevant=found,
        first=first,
        again=again,
        timings=[time_rival(rival, prompts, warm_up=scene.texts.values()) for rival in rivals],
    )
    scene.screen.table(build_table(measured))
