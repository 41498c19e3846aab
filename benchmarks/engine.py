"""By hand, with a real engine: 8,000-id prompts as ids and as text, warm prefix, 4 clients.

    python -m benchmarks.engine --url http://127.0.0.1:18000 [--model NAME] [--pid FRONT_END]

Talks to an OpenAI-compatible server that takes `{"prompt": [ids]}` and has vLLM's `/tokenize` and `/detokenize`. Both
sides send the same prompts: the text is what the engine's own tokenizer makes exactly these ids of.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
from rich.console import Console

from benchmarks.corpus import open_corpus
from benchmarks.harness import Measured, percentile
from benchmarks.machine import facts
from benchmarks.report import Goal, Row, at_least, at_most, build_table, summary

PROMPT_TOKENS = 8_000
PROMPTS = 4
CLIENTS = 4
_TIMEOUT_S = 300.0
_CHARS_A_TOKEN = 6


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt both ways."""

    ids: list[int]
    text: str


@dataclass(slots=True)
class Side:
    """What was measured of one way to send prompts."""

    rates: list[float] = field(default_factory=list)
    """Requests a second, by round."""
    cpu_ms: list[float] = field(default_factory=list)
    """Front-end CPU a request, by round."""
    p50_ms: list[float] = field(default_factory=list)


class Engine:
    """The server, and the process whose CPU counts."""

    def __init__(self, client: httpx.AsyncClient, *, model: str, pid: int | None) -> None:
        self._client = client
        self._model = model
        self._process = None if pid is None else psutil.Process(pid)

    async def prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """Make prompts of exactly so many ids, of whose text the engine makes the same ids again."""
        found: list[Prompt] = []
        for text in texts:
            ids = (await self._tokenize(text))[:PROMPT_TOKENS]
            answer = await self._post("/detokenize", {"model": self._model, "tokens": ids})
            if len(ids) == PROMPT_TOKENS and await self._tokenize(answer["prompt"]) == ids:
                found.append(Prompt(ids, answer["prompt"]))
            if len(found) == PROMPTS:
                return found
        raise RuntimeError(f"only {len(found)} of {PROMPTS} prompts are the same both ways: is the text long enough?")

    async def measure(self, prompts: Sequence[str | list[int]], side: Side, *, requests: int) -> None:
        """Send so many requests from all clients together, after one of each prompt that warms its prefix."""
        for prompt in prompts:
            await self._complete(prompt)
        loop = asyncio.get_running_loop()
        taken: list[float] = []

        async def ask(first: int) -> None:
            for place in range(first, requests, CLIENTS):
                began = loop.time()
                await self._complete(prompts[place % len(prompts)])
                taken.append((loop.time() - began) * 1000)

        cpu_before, began = self._cpu_s(), loop.time()
        await asyncio.gather(*(ask(client) for client in range(CLIENTS)))
        side.rates.append(requests / (loop.time() - began))
        side.p50_ms.append(percentile(taken, 0.5))
        if cpu_before is not None:
            side.cpu_ms.append(((self._cpu_s() or 0.0) - cpu_before) / requests * 1000)

    async def _complete(self, prompt: str | list[int]) -> None:
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        answer = await self._post("/v1/completions", body)
        if answer["usage"]["prompt_tokens"] != PROMPT_TOKENS:
            raise RuntimeError(f"the engine read {answer['usage']['prompt_tokens']} ids, not {PROMPT_TOKENS}")

    async def _tokenize(self, text: str) -> list[int]:
        body = {"model": self._model, "prompt": text, "add_special_tokens": False}
        ids: list[int] = (await self._post("/tokenize", body))["tokens"]
        return ids

    async def _post(self, path: str, body: Mapping[str, object]) -> dict[str, Any]:
        response = await self._client.post(path, json=body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer

    def _cpu_s(self) -> float | None:
        """Return the front end's own CPU time: its engine cores are processes of their own."""
        if self._process is None:
            return None
        times = self._process.cpu_times()
        return float(times.user + times.system)


async def compare(url: str, *, model: str | None, pid: int | None, requests: int, rounds: int) -> list[Row]:
    """Measure both sides in turn and return the rows."""
    async with httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, trust_env=False) as client:
        served = (await client.get("/v1/models")).raise_for_status().json()["data"][0]["id"]
        engine = Engine(client, model=model or served, pid=pid)
        prompts = await engine.prompts(_long_texts())
        ids, text = Side(), Side()
        sides: list[tuple[Side, list[str | list[int]]]] = [
            (ids, [prompt.ids for prompt in prompts]),
            (text, [prompt.text for prompt in prompts]),
        ]
        for _ in range(rounds):
            for side, asked in sides:
                await engine.measure(asked, side, requests=requests)
            sides.reverse()
    return _rows(ids, text)


def _long_texts() -> list[str]:
    """Return texts long enough for a prompt each."""
    whole = "\n\n".join(document.text for document in open_corpus(quick=True).documents())
    size = PROMPT_TOKENS * _CHARS_A_TOKEN
    return [whole[start : start + size] for start in range(0, min(len(whole), 10 * PROMPTS * size), size)]


def _rows(ids: Side, text: Side) -> list[Row]:
    what = f"{PROMPT_TOKENS:,}-id prompts, warm prefix, {CLIENTS} clients"
    against = "the same prompts as text"

    def row(key: str, named: str, unit: str, ours: list[float], theirs: list[float], goal: Goal | None) -> Row:
        measured = Measured(tuple(ours), unit), Measured(tuple(theirs), unit)
        return Row(f"engine.{key}", f"{what}: {named}", against, *measured, goal)

    rows = [
        row("rate", "requests", "/s", ids.rates, text.rates, at_least(1.5)),
        row("p50", "p50", "ms", ids.p50_ms, text.p50_ms, None),
    ]
    if ids.cpu_ms:
        rows.append(row("cpu", "front-end CPU a request", "ms", ids.cpu_ms, text.cpu_ms, at_most(0.5)))
    return rows


def main(arguments: Sequence[str]) -> int:
    """Compare, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True, help="of the running server")
    parser.add_argument("--model", help="its name there; by default the first it serves")
    parser.add_argument("--pid", type=int, help="of its front-end process, whose CPU is measured")
    parser.add_argument("--requests", type=int, default=60, help="a round")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args(arguments)
    rows = asyncio.run(
        compare(asked.url, model=asked.model, pid=asked.pid, requests=asked.requests, rounds=asked.rounds)
    )
    screen = Console(width=None if sys.stdout.isatty() else 200)
    for name, value in facts().items():
        screen.print(f"{name}: {value}", highlight=False)
    screen.print(build_table(rows))
    screen.print(summary(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
