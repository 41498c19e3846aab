"""The rows as pictures: every ratio beside its goal, and the rates of filling."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.report import TIMES, Row, significant

_OURS, _THEIRS, _GOAL, _MISSED = "#1f6f8b", "#b9c4c9", "#333333", "#b5482f"
_WIDTH_IN = 9.0
_ROW_IN = 0.42


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Write the plots that these rows allow, as SVG, and return their paths; the same rows give the same bytes."""
    mpl.rcParams["svg.hashsalt"] = "forefill"
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"ratios": _ratios(rows), "fill": _rates(rows, prefix="fill.", unit="MB/s")}
    paths = []
    for name, figure in drawn.items():
        if figure is not None:
            path = folder / f"{name}.svg"
            figure.savefig(path, format="svg", metadata={"Date": None}, bbox_inches="tight")
            paths.append(path)
    return paths


def _ratios(rows: Sequence[Row]) -> Figure | None:
    """Draw every ratio that has a goal as a bar, and the goal as a line across it."""
    shown = [row for row in rows if row.goal is not None and row.ratio is not None][::-1]
    if not shown:
        return None
    figure = Figure(figsize=(_WIDTH_IN, 1.0 + _ROW_IN * len(shown)))
    axes = figure.subplots()
    for place, row in enumerate(shown):
        assert row.ratio is not None and row.goal is not None  # noqa: PT018  # chosen above
        axes.barh(place, row.ratio, color=_OURS if row.verdict == "met" else _MISSED, height=0.6)
        axes.plot([row.goal.bound] * 2, [place - 0.4, place + 0.4], color=_GOAL, linewidth=2)
        said = f"  {significant(row.ratio)} {TIMES} (goal {row.goal})"
        axes.annotate(said, (max(row.ratio, row.goal.bound), place), va="center", fontsize=8)
    axes.set_yticks(range(len(shown)), [row.key for row in shown], fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.3)
    axes.set_xlabel("Forefill / the other side, logarithmic; the line is the goal, red misses it")
    return figure


def _rates(rows: Sequence[Row], *, prefix: str, unit: str) -> Figure | None:
    """Draw both sides of the rows of one subject, with the spread of the repetitions."""
    shown = [row for row in rows if row.key.startswith(prefix) and row.ours is not None and row.ours.unit == unit]
    if not shown:
        return None
    figure = Figure(figsize=(_WIDTH_IN, 1.0 + 2 * _ROW_IN * len(shown)))
    axes = figure.subplots()
    for place, row in enumerate(shown[::-1]):
        for offset, measured, colour in ((0.2, row.ours, _OURS), (-0.2, row.theirs, _THEIRS)):
            if measured is not None:
                middle = measured.median
                spread = [[middle - measured.low], [measured.high - middle]]
                axes.barh(place + offset, middle, xerr=spread, color=colour, height=0.36, ecolor=_GOAL)
    axes.set_yticks(range(len(shown)), [row.key for row in shown[::-1]], fontsize=8)
    axes.set_xlabel(f"{unit}: Forefill above, the other side below; lines are the spread of the repetitions")
    return figure
