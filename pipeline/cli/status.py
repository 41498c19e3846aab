"""`forefill status`: how everything stands, once or again and again."""

import contextlib
import time
from typing import Annotated

import typer

from pipeline.cli.following import describe_run
from pipeline.cli.invocation import Call, command
from pipeline.cli.output import Output
from pipeline.cli.patience import patiently
from pipeline.documents.states import DocumentState
from pipeline.factory import open_token_writer
from pipeline.services.diagnosis.database_writes import DatabaseWriteProbe
from pipeline.services.diagnosis.redis_writes import WriteProbe
from pipeline.services.overview import Overview, take_overview
from pipeline.services.presenting import JsonObject, coverage_object, queues_object, run_object, time_text
from pipeline.settings import MIB

_CACHE_TIMEOUT_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(status)


def status(
    call: Call,
    watch: Annotated[bool, typer.Option("--watch", help="Look again until stopped.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Show corpora, coverage, queues, workers, running runs and the cache."""
    with (
        call.database() as database,
        contextlib.closing(open_token_writer(call.settings, timeout_s=_CACHE_TIMEOUT_S)) as cache,
        contextlib.closing(WriteProbe(call.settings.broker_url, service="broker")) as broker_writes,
        contextlib.closing(WriteProbe(call.settings.cache_url, service="cache")) as cache_writes,
    ):
        probes = {"database": DatabaseWriteProbe(database), "broker": broker_writes, "cache": cache_writes}
        while True:
            overview = patiently(call.output)(take_overview, database, cache, probes)
            if watch and call.output.results.is_terminal:
                call.output.results.clear()
            call.output.emit(overview_object(overview))
            _show(overview, call.output)
            if not watch:
                return
            time.sleep(interval)


def overview_object(overview: Overview) -> JsonObject:
    """Return an overview as JSON: what `/v1/stats` says without queries, and what operators want beside it."""
    cache = overview.cache
    return {
        "total_tokens_cached": sum(entry.tokens for entry in overview.coverage),
        "cache_size_mb": None if cache is None else cache.used_bytes / MIB,
        "coverage": coverage_object(overview.coverage),
        "caching_off": [
            {"corpus": off.corpus, "spec": off.spec_id, "reason": off.reason, "disabled_at": time_text(off.disabled_at)}
            for off in overview.caching_off
        ],
        "queues": queues_object(overview.queues),
        "corpora": {name: dict(counts) for name, counts in overview.states.items()},
        "workers": [
            {"name": w.name, "queues": list(w.queues), "concurrency": w.concurrency, "seen_s": w.seen_s}
            for w in overview.workers
        ],
        "next_runs": {name: time_text(at) for name, at in overview.next_runs.items()},
        "dispatcher": overview.dispatcher,
        "runs": [run_object(run) for run in overview.runs],
        "cache": None
        if cache is None
        else {
            "keys": cache.keys,
            "used_bytes": cache.used_bytes,
            "max_bytes": cache.max_bytes,
            "evicted_keys": cache.evicted_keys,
            "eviction_policy": cache.eviction_policy,
        },
        "problems": dict(overview.problems),
    }


def _show(overview: Overview, output: Output) -> None:
    shares = coverage_object(overview.coverage)
    states = [state.value for state in DocumentState]
    output.table(
        ("CORPUS", *(state.upper() for state in states), "COVERAGE"),
        [
            (name, *(counts[state] for state in states), _coverage(shares.get(name, {})))
            for name, counts in overview.states.items()
        ],
    )
    for off in overview.caching_off:
        output.line(f"caching of corpus {off.corpus} under {off.spec_id} is off: {off.reason}")
    output.line()
    output.table(
        ("QUEUE", "PENDING", "RUNNING", "OLDEST S", "WORKERS"),
        [(queue.name, queue.depth, queue.running, queue.oldest_age_s, queue.workers) for queue in overview.queues],
    )
    output.line()
    for worker in overview.workers:
        output.line(f"worker {worker.name}: {worker.concurrency} children on {', '.join(worker.queues)}")
    otherwise = "unknown" if "database" in overview.problems else "none: start `forefill dispatcher`"
    output.line(f"dispatcher {overview.dispatcher or otherwise}")
    for name, at in overview.next_runs.items():
        output.line(f"next run of {name} {time_text(at)}")
    for run in overview.runs:
        output.line(describe_run(run))
    output.line(_cache(overview))
    for problem in overview.problems.values():
        output.line(problem)


def _coverage(shares: dict[str, float | None]) -> str:
    shown = {spec: "unknown" if share is None else f"{share:.1%}" for spec, share in shares.items()}
    return ", ".join(f"{share} {spec}" for spec, share in shown.items()) or "-"


def _cache(overview: Overview) -> str:
    cache = overview.cache
    if cache is None:
        return "cache does not answer"
    limit = f" of {cache.max_bytes / MIB:,.0f}" if cache.max_bytes else ""
    return f"cache {cache.keys:,} keys, {cache.used_bytes / MIB:,.1f}{limit} MiB, {cache.evicted_keys:,} evicted"
