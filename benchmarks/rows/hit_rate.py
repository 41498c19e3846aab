"""Do queries hit while documents change? A Zipf stream of questions, 1 % of the documents updated every minute.

Minutes are simulated, the work is real: updates are PUT, workers publish them while the questions of that minute are
asked of the API. The other cache sees the same answers by the simulated clock.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import httpx

from benchmarks.asking import questions_from, zipf_stream
from benchmarks.bench import Bench
from benchmarks.corpus import Document
from benchmarks.harness import SEED, Measured
from benchmarks.report import Row, at_least
from benchmarks.rivals.answer_cache import TTL_S, AnswerCache
from benchmarks.serving import CORPUS, serving_stack, short
from tests.support.stack import Stack

TOP_K = 5
_QUESTIONS = 1_000
_UPDATED_SHARE = 0.01
_MINUTE_S = 60.0


def measure(bench: Bench) -> Iterator[Row]:
    """Yield the hit rate of questions, the other one's, and how many of that one's hits were old text."""
    documents = short(bench.documents, count=bench.sizes.served_documents)
    bench.say(f"hit rate: publishing {len(documents):,} documents with their embeddings")
    with serving_stack(bench.new_folder(), documents) as stack:
        stack.start_api()
        with httpx.Client(base_url=stack.api_url, trust_env=False, timeout=30) as client:
            world = _World(client, documents, stack)
            bench.say(f"hit rate: {bench.sizes.minutes} minutes of {bench.sizes.questions_a_minute:,} questions")
            stream = zipf_stream(questions_from(documents, _QUESTIONS))
            for minute in range(bench.sizes.minutes):
                world.live_a_minute(minute, list(islice(stream, bench.sizes.questions_a_minute)))
    yield from _rows(world, len(documents))


@dataclass
class _World:
    """Documents that change, questions that are asked, and both caches' counts."""

    client: httpx.Client
    documents: list[Document]
    stack: Stack
    other: AnswerCache = field(default_factory=AnswerCache)
    questions: Counter[bool] = field(default_factory=Counter)
    """By whether all passages hit."""
    passages: Counter[str] = field(default_factory=Counter)
    """By source."""

    def __post_init__(self) -> None:
        self._draw = random.Random(SEED)

    def live_a_minute(self, minute: int, asked: list[str]) -> None:
        """Update documents, ask all questions of the minute at once, and wait until the updates are published."""
        run_id = self._update(minute)
        for place, question in enumerate(asked):
            self._ask(question, now_s=(minute + place / len(asked)) * _MINUTE_S)
        self.stack.wait_for_run(run_id, timeout_s=300)

    def _update(self, minute: int) -> str:
        count = max(1, round(len(self.documents) * _UPDATED_SHARE))
        changed = [
            {"id": document.id, "text": f"Edition of minute {minute}.\n\n{document.text}"}
            for document in self._draw.sample(self.documents, count)
        ]
        answer = self.client.put(f"/v1/corpora/{CORPUS}/documents", json={"documents": changed})
        answer.raise_for_status()
        run_id: str = answer.json()["run_id"]
        return run_id

    def _ask(self, question: str, *, now_s: float) -> None:
        response = self.client.post("/v1/retrieve", json={"corpus": CORPUS, "query": question, "top_k": TOP_K})
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        self.questions[answer["metadata"]["cache_hit"]] += 1
        self.passages.update(passage["source"] for passage in answer["passages"])
        names = [f"{passage['document_id']}:{passage['ordinal']}" for passage in answer["passages"]]
        self.other.ask(names, answer["token_ids"], now_s=now_s)


def _rows(world: _World, documents: int) -> Iterator[Row]:
    asked = world.questions.total()
    ours = 100.0 * world.questions[True] / max(1, asked)
    other = world.other
    sources = ", ".join(f"{count:,} {source}" for source, count in sorted(world.passages.items()))
    yield Row(
        "hit_rate",
        f"hit rate, {asked:,} Zipf questions of {_QUESTIONS:,}, 1 % of {documents:,} documents updated a minute",
        f"SHA-256 of the sorted retrieved ids, JSON, TTL {TTL_S:.0f} s: {other.hit_percent:.1f} %",
        Measured((ours,), "%"),
        goal=at_least(100, "%"),
        remark=f"passages: {sources}; the other one's {other.hits:,} hits gave {other.stale:,} times the ids of an "
        "older text, ours never can",
    )
