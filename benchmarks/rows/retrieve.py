"""`/v1/retrieve` under load, all hits, against a route of the same process that does the search alone."""

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.asking import questions_from
from benchmarks.bench import Bench
from benchmarks.harness import Measured, in_turn
from benchmarks.report import Row, at_least, at_most
from benchmarks.search_app import PATH
from benchmarks.serving import CORPUS, serving_stack, short, start_search_app
from tests.support.stack import Stack

CLIENTS = 16
TOP_K = 5
_QUESTIONS = 300
_RETRIEVE = "/v1/retrieve"
_ROOT = Path(__file__).resolve().parents[2]


def measure(bench: Bench) -> Iterator[Row]:
    """Yield requests a second beside the search alone, and what lookup and assembly add to the slowest of them."""
    folder = bench.new_folder()
    documents = short(bench.documents, count=bench.sizes.served_documents)
    bench.say(f"retrieve: publishing {len(documents):,} documents with their embeddings")
    bodies = folder / "bodies.json"
    asked = questions_from(documents, _QUESTIONS)
    bodies.write_text(
        json.dumps([{"corpus": CORPUS, "query": question, "top_k": TOP_K} for question in asked]), encoding="utf-8"
    )
    with serving_stack(folder, documents) as stack:
        start_search_app(stack)
        bench.say(f"retrieve: {bench.sizes.load_rounds} rounds of {bench.sizes.load_s:g} s")
        found: dict[str, list[dict[str, Any]]] = {_RETRIEVE: [], PATH: []}
        for path in found:  # every question once, so that nothing of it is new
            _load(stack, path, bodies, seconds=bench.sizes.load_s, into=[])
        sides = {
            path: partial(_load, stack, path, bodies, seconds=bench.sizes.load_s, into=into)
            for path, into in found.items()
        }
        rates = in_turn(sides, rounds=bench.sizes.load_rounds, unit="/s")
    yield from _rows(rates, found)


def _rows(rates: dict[str, Measured], found: dict[str, list[dict[str, Any]]]) -> list[Row]:
    def times(path: str, name: str) -> Measured:
        return Measured(tuple(each[name] for each in found[path]), "ms")

    what = f"{_RETRIEVE}, {TOP_K} passages, all hits, {CLIENTS} clients, one process"
    against = "the same app doing the Qdrant search alone"
    missed = sum(each["misses"] for each in found[_RETRIEVE])
    remark = f"WARNING: {missed} of the looked at answers missed" if missed else ""
    return [
        Row(
            "retrieve.rate",
            what,
            against,
            rates[_RETRIEVE],
            rates[PATH],
            at_least(0.8),
            remark=remark,
        ),
        Row("retrieve.p50", f"{what}: p50", against, times(_RETRIEVE, "p50_ms"), times(PATH, "p50_ms")),
        Row("retrieve.p99", f"{what}: p99", against, times(_RETRIEVE, "p99_ms"), times(PATH, "p99_ms")),
        Row(
            "retrieve.added_p99",
            "p99 added by lookup and assembly (timings_ms: cache, tokenize, assemble)",
            "-",
            times(_RETRIEVE, "added_p99_ms"),
            goal=at_most(1.0, "ms"),
            remark=f"p50 {times(_RETRIEVE, 'added_p50_ms').median:.3f} ms; "
            f"measured with {CLIENTS} requests in flight, so that others' work in the same event loop is in it",
        ),
    ]


def _load(stack: Stack, path: str, bodies: Path, *, seconds: float, into: list[dict[str, Any]]) -> float:
    """Ask for so long from another process; return requests a second, and keep all it said."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load", str(stack.api_port), path, str(seconds), str(CLIENTS), str(bodies)],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"the clients failed: {done.stderr.strip().splitlines()[-1:]}")
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    into.append(said)
    return float(said["requests_per_s"])
