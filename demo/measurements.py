"""The one table of the demo: what is cached, how often it hit, and where the milliseconds went."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from demo.client import Answer
from demo.tokenizing import FAST, Timing

PARTS = ("embed", "search", "cache", "tokenize", "assemble")
"""As `timings_ms` names them, in their order."""

_IN_PLACE_OF_TOKENIZING = ("cache", "tokenize", "assemble")


@dataclass(frozen=True, slots=True)
class Round:
    """All questions asked once."""

    answers: Sequence[Answer]
    first_at: float
    """When the first of them was there, by the monotonic clock."""
    hit_rate: float
    """Percent, as `/v1/stats` counts it."""
    hits: int
    misses: int

    def median_ms(self, *parts: str) -> float:
        """Return the median over the questions of the time spent in some parts together."""
        return statistics.median(sum(answer.timings_ms[part] for part in parts) for answer in self.answers)

    @property
    def latency_ms(self) -> float:
        """Median over the questions, as the API measured it."""
        return statistics.median(answer.latency_ms for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Measurements:
    """Everything that the table shows."""

    coverage: float
    """Share of passages that have their entry, 0 to 1."""
    spec: str
    documents: int
    passages: int
    relevant: int
    """Questions whose answer holds a document that answers them."""
    first: Round
    again: Round
    timings: Sequence[Timing]


def rows(measured: Measurements) -> list[tuple[str, str, str, str]]:
    """Return the table's rows: what, asked first, asked again, remark."""
    first, again = measured.first, measured.again
    count = len(first.answers)
    ids = statistics.median(len(answer.token_ids) for answer in first.answers)
    return [
        (
            "coverage",
            f"{measured.coverage:.1%}",
            "",
            f"{measured.passages:,} passages of {measured.documents:,} documents under {measured.spec}",
        ),
        ("hit rate", f"{first.hit_rate:.1f}%", f"{again.hit_rate:.1f}%", _lookups(first, again)),
        ("relevant document found", f"{measured.relevant} of {count}", "", "among at most 5 passages"),
        *((name, _ms(first.median_ms(name)), _ms(again.median_ms(name)), _REMARKS.get(name, "")) for name in PARTS),
        ("whole query", _ms(first.latency_ms), _ms(again.latency_ms), f"ms; all times are medians of {count}"),
        (
            "ids from Forefill",
            _ms(first.median_ms(*_IN_PLACE_OF_TOKENIZING)),
            _ms(again.median_ms(*_IN_PLACE_OF_TOKENIZING)),
            f"ms: cache, tokenize, assemble; {ids:,.0f} ids a prompt",
        ),
        *(_rival_row(timing) for timing in measured.timings),
        *_missing(measured.timings),
    ]


def build_table(measured: Measurements) -> Table:
    """Return the table for a terminal."""
    table = Table(
        title="What it did, and where the milliseconds of a query went",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    table.add_column("first asked", justify="right", no_wrap=True)
    table.add_column("again", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    ends = {"relevant document found", "whole query"}
    for row in rows(measured):
        table.add_row(*row, end_section=row[0] in ends)
    return table


_REMARKS = {
    "embed": "ms: the question's vectors",
    "search": "ms: Qdrant's engine, another process",
    "cache": "ms: one MGET, then memory",
    "tokenize": "ms: only what the cache lacks",
    "assemble": "ms: order, budget, frame",
}


def _lookups(first: Round, again: Round) -> str:
    hits, misses = first.hits + again.hits, first.misses + again.misses
    return f"{hits:,} passages looked up and found, {misses:,} missed"


def _rival_row(timing: Timing) -> tuple[str, str, str, str]:
    """Return the row of a tokenizer; its time counts only if all of its ids are right."""
    if timing.equal < timing.prompts:
        wrong = timing.prompts - timing.equal
        return (timing.name, "-", "-", f"not compared: other ids for {wrong} of {timing.prompts} prompts")
    time = _ms(timing.median_ms)
    return (timing.name, time, time, "ms: those prompts when asked, text in hand; same ids")


def _missing(timings: Sequence[Timing]) -> list[tuple[str, str, str, str]]:
    if any(timing.name.startswith(FAST) for timing in timings):
        return []
    return [(FAST, "-", "-", f"not measured: the package {FAST} is not installed")]


def _ms(value: float) -> str:
    return f"{value:,.3f}"
