"""A plain page for people: coverage, queues, recent runs. No script, nothing loaded, every value escaped."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from sqlalchemy import Connection

from pipeline.jobs.run_reports import RunReport, list_runs
from pipeline.jobs.store import QueueStatus, queue_status
from pipeline.services.inspection import Coverage, list_coverage
from pipeline.services.presenting import time_text
from pipeline.token_cache import LookupStats

_RUNS_SHOWN = 20

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 0 0 2rem; width: 100%; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .6rem; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
p.problem { background: #fdd; padding: .6rem; }
"""


@dataclass(frozen=True, slots=True)
class StatusView:
    """What the page shows of SQL."""

    coverage: Sequence[Coverage] = ()
    queues: Sequence[QueueStatus] = ()
    runs: Sequence[RunReport] = ()
    problem: str | None = None
    """Why there is nothing to show."""


def load_status(connection: Connection, *, corpora: Sequence[str] | None = None) -> StatusView:
    """Read what the page shows, of these corpora or of all."""
    return StatusView(
        coverage=list_coverage(connection, corpora=corpora),
        queues=queue_status(connection),
        runs=list_runs(connection, corpora=corpora, limit=_RUNS_SHOWN),
    )


def render_status(view: StatusView, *, lookups: LookupStats) -> str:
    """Return the page."""
    trouble = "" if view.problem is None else f'<p class="problem">{escape(view.problem)}</p>'
    tables = (
        ("Lookups", _table(("hits", "misses", "hit rate", "errors"), [_lookups(lookups)])),
        ("Coverage", _table(("corpus", "spec", "passages", "cached", "tokens"), map(_coverage, view.coverage))),
        ("Queues", _table(("queue", "pending", "running", "oldest", "workers"), map(_queue, view.queues))),
        ("Runs", _table(("run", "kind", "corpus", "state", "documents", "dead", "created"), map(_run, view.runs))),
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Forefill</title>'
        f"<style>{_STYLE}</style></head><body><h1>Forefill</h1>{trouble}"
        + "".join(f"<h2>{title}</h2>{table}" for title, table in tables)
        + '<p><a href="/docs">API</a> · <a href="/metrics">Metrics</a> · <a href="/readyz">Readiness</a></p>'
        "</body></html>"
    )


def _lookups(stats: LookupStats) -> tuple[object, ...]:
    return stats.hits, stats.misses, f"{stats.hit_rate:.1f} %", stats.errors


def _coverage(entry: Coverage) -> tuple[object, ...]:
    share = "unknown" if entry.share is None else f"{100 * entry.share:.1f} %"
    return entry.corpus, entry.spec, entry.passages, share, entry.tokens


def _queue(queue: QueueStatus) -> tuple[object, ...]:
    return queue.name, queue.depth, queue.running, f"{queue.oldest_age_s:.0f} s", queue.workers


def _run(run: RunReport) -> tuple[object, ...]:
    created = time_text(run.created_at)
    return run.id, run.kind, run.corpus, run.state, run.totals["documents"], run.totals["dead"], created


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f'<td class="number">{value:,}</td>'
    return f"<td>{escape(str(value))}</td>"
