"""What was measured, as a table for people and as JSON for machines: each row with its goal, met or not."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.harness import Measured

TIMES = "\u00d7"
"""Unit of a ratio."""

Verdict = Literal["met", "NOT MET", "not measured", "-"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound for a row's ratio, or for its own figure."""

    bound: float
    at_least: bool
    """Whether the bound is the least or the most."""
    unit: str = TIMES

    def holds(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:.3g} {self.unit}"


def at_least(bound: float, unit: str = TIMES) -> Goal:
    """Return the goal of no less than this."""
    return Goal(bound, at_least=True, unit=unit)


def at_most(bound: float, unit: str = TIMES) -> Goal:
    """Return the goal of no more than this."""
    return Goal(bound, at_least=False, unit=unit)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    key: str
    """Names the row in JSON and plots, as `fill.sqlite.tiktoken`."""
    what: str
    against: str
    ours: Measured | None
    """None: it could not be measured, and `remark` says why."""
    theirs: Measured | None = None
    """None: our figure stands for itself."""
    goal: Goal | None = None
    cold: Measured | None = None
    """Our side as a process does it the first time."""
    remark: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over theirs, by the medians."""
        return None if self.ours is None or self.theirs is None else self.ours.per(self.theirs)

    @property
    def judged(self) -> float | None:
        """What the goal is for: the ratio, or our figure where there is no other side."""
        if self.theirs is not None or self.ours is None:
            return self.ratio
        return self.ours.median

    @property
    def verdict(self) -> Verdict:
        """Whether the goal was met."""
        value = self.judged
        if self.goal is None:
            return "-" if self.ours is not None else "not measured"
        if value is None:
            return "not measured"
        return "met" if self.goal.holds(value) else "NOT MET"

    @property
    def shortfall(self) -> str:
        """By how much a missed goal is missed, from this row's own figures; empty where it is not missed."""
        if self.verdict != "NOT MET" or self.goal is None or self.ours is None:
            return ""
        needed = self.goal.bound * (1.0 if self.theirs is None else self.theirs.median)
        word = "more" if self.goal.at_least else "less"
        beside = "" if self.theirs is None else f" beside {significant(self.theirs.median)}"
        said = (
            f"not met: {significant(needed)} {self.ours.unit} or {word} would be needed{beside}, "
            f"{significant(self.ours.median)} were measured"
        )
        best = self.ours.high if self.goal.at_least else self.ours.low
        other = None if self.theirs is None else (self.theirs.low if self.goal.at_least else self.theirs.high)
        if self.goal.holds(best if other is None else best / other):
            said += "; the repetitions are further apart than that, so it may be met when the machine is quiet"
        return said

    @property
    def remarks(self) -> list[str]:
        """What is told below the table."""
        return [told for told in (self.remark, self.shortfall) if told]

    def to_object(self) -> dict[str, Any]:
        """Return the row for JSON, every single measurement included."""
        return {
            "key": self.key,
            "what": self.what,
            "against": self.against,
            "ours": _measured_object(self.ours),
            "theirs": _measured_object(self.theirs),
            "cold": _measured_object(self.cold),
            "ratio": self.ratio,
            "goal": None if self.goal is None else str(self.goal),
            "verdict": self.verdict,
            "remark": "; ".join(self.remarks),
        }


def not_measured(key: str, what: str, against: str, *, why: str, goal: Goal | None = None) -> Row:
    """Return the row of what could not be measured here."""
    return Row(key, what, against, ours=None, goal=goal, remark=f"not measured: {why}")


def build_table(rows: Sequence[Row]) -> Table:
    """Return the table for a terminal; figures are medians with the smallest and largest of the repetitions."""
    table = Table(title="Forefill, measured beside what people would do instead", title_justify="left", box=box.SIMPLE)
    table.add_column("what")
    table.add_column("against")
    for heading in ("Forefill", "cold", "other", "ratio", "goal", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        ratio = "" if row.ratio is None else f"{significant(row.ratio)} {TIMES}"
        goal = "" if row.goal is None else str(row.goal)
        figures = (shown(row.ours), shown(row.cold), shown(row.theirs))
        table.add_row(row.what, row.against, *figures, ratio, goal, row.verdict, end_section=False)
    return table


def one_line(row: Row) -> str:
    """Say a row in one line, to be printed when it has been measured."""
    if row.ours is None:
        return f"{row.key}: {row.remark}"
    parts = [shown(row.ours)]
    if row.theirs is not None:
        parts += [f"other {shown(row.theirs)}", f"{significant(row.ours.per(row.theirs))} {TIMES}"]
    if row.goal is not None:
        parts.append(f"goal {row.goal}: {row.verdict}")
    return f"{row.key}: {', '.join(parts)}"


def print_report(console: Console, rows: Sequence[Row], *, facts: Mapping[str, Any], corpus: Mapping[str, Any]) -> None:
    """Print machine, text, table, remarks, and how many goals were met."""
    for name, value in facts.items():
        console.print(f"{name}: {value}", highlight=False)
    console.print(f"text: {corpus['text_bytes'] / 1e6:.1f} MB, sha256 {corpus['sha256'][:16]}", highlight=False)
    packages = ", ".join(f"{each['package']} {each['version']}" for each in corpus["packages"])
    console.print(f"made of: {packages}", highlight=False)
    if corpus["remark"]:
        console.print(corpus["remark"], style="bold")
    console.print(build_table(rows))
    for row in rows:
        for told in row.remarks:
            console.print(f"{row.key}: {told}", highlight=False)
    console.print(summary(rows), style="bold")


def summary(rows: Sequence[Row]) -> str:
    """Say in a sentence how many goals were met."""
    goals = [row for row in rows if row.goal is not None]
    if not goals:
        return "no goal is judged: goals are for the whole text, which a quick run does not measure"
    met = sum(row.verdict == "met" for row in goals)
    missing = sum(row.verdict == "not measured" for row in goals)
    return f"{met} of {len(goals)} goals met" + (f", {missing} not measured" if missing else "")


def write_json(path: Path, rows: Sequence[Row], *, facts: Mapping[str, Any], corpus: Mapping[str, Any]) -> str:
    """Write everything that was measured, and return what was written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = {"machine": dict(facts), "corpus": dict(corpus), "rows": [row.to_object() for row in rows]}
    written = json.dumps(found, indent=1, ensure_ascii=False)
    path.write_text(f"{written}\n", encoding="utf-8")
    return written


def markdown(rows: Sequence[Row], *, facts: Mapping[str, Any], corpus: Mapping[str, Any], command: str) -> str:
    """Return table, machine, text and remarks as a page of the documentation."""
    packages = ", ".join(f"{each['package']} {each['version']}" for each in corpus["packages"])
    lines = [
        "# Benchmarks",
        "",
        f"Printed by `{command}`: both sides of a row in one run, medians with the smallest and the largest of the",
        "repetitions in brackets. **Trust the ratios, not the absolute figures**, and run it on your own machine.",
        "Bytes per second count the text of passages; *cold* is what a worker process does the first time.",
        "",
        *(f"- {name}: {value}" for name, value in facts.items()),
        f"- text: {corpus['text_bytes'] / 1e6:.0f} MB, SHA-256 {corpus['sha256'][:16]}…, made of {packages}",
        "",
        f"**{summary(rows)}.** What the figures mean for you: [when it pays](../when-it-pays.md).",
        "",
        "| what | against | Forefill | cold | other | ratio | goal | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = "" if row.ratio is None else f"{significant(row.ratio)} {TIMES}"
        goal = "" if row.goal is None else str(row.goal)
        cells = (row.what, row.against, shown(row.ours), shown(row.cold), shown(row.theirs), ratio, goal, row.verdict)
        lines.append(f"| {' | '.join(cells)} |")
    remarks = [f"- `{row.key}`: {told}" for row in rows for told in row.remarks]
    return "\n".join([*lines, "", *remarks, ""])


def shown(measured: Measured | None) -> str:
    """Write a figure: its median, and in brackets the smallest and the largest where there are several."""
    if measured is None:
        return ""
    middle = f"{significant(measured.median)} {measured.unit}"
    if len(measured.values) == 1 or measured.low == measured.high:
        return middle
    return f"{middle} ({significant(measured.low)}-{significant(measured.high)})"


def significant(value: float) -> str:
    """Write a number with three digits that mean something."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3g}"


def _measured_object(measured: Measured | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    return {"median": measured.median, "unit": measured.unit, "values": list(measured.values)}
