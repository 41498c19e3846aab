"""What is said of measurements: verdicts, figures, and that nothing unmeasured passes for met."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.harness import Measured
from benchmarks.report import (
    TIMES,
    Row,
    at_least,
    at_most,
    markdown,
    not_measured,
    one_line,
    print_report,
    shown,
    summary,
    write_json,
)

CORPUS = {"text_bytes": 1_500_000, "sha256": "ab" * 32, "remark": "", "packages": [{"package": "p", "version": "1"}]}


def measured(*values: float, unit: str = "MB/s") -> Measured:
    return Measured(values, unit)


def test_a_ratio_is_ours_over_theirs_by_the_medians() -> None:
    row = Row("k", "fill", "tiktoken", measured(1, 40, 90), measured(10, 10, 99), at_least(4))
    assert row.ratio == 4
    assert row.verdict == "met"


@pytest.mark.parametrize(
    ("ours", "theirs", "goal", "verdict"),
    [
        (39.9, 10.0, at_least(4), "NOT MET"),
        (20.0, 10.0, at_most(2), "met"),
        (20.1, 10.0, at_most(2), "NOT MET"),
        (20.0, 10.0, None, "-"),
    ],
)
def test_a_bound_itself_is_within_the_bound(ours: float, theirs: float, goal: None, verdict: str) -> None:
    assert Row("k", "w", "a", measured(ours), measured(theirs), goal).verdict == verdict


def test_without_another_side_the_figure_itself_is_judged() -> None:
    assert Row("k", "w", "-", measured(1.9), goal=at_most(2.05, "bytes")).verdict == "met"
    assert Row("k", "w", "-", measured(99.9), goal=at_least(100, "%")).verdict == "NOT MET"


def test_what_was_not_measured_is_never_met() -> None:
    row = not_measured("k", "w", "a", why="no network", goal=at_least(0))
    assert row.verdict == "not measured"
    assert "no network" in row.remark
    assert summary([row, Row("k", "w", "-", measured(1), goal=at_least(1))]) == "1 of 2 goals met, 1 not measured"


def test_a_figure_shows_how_far_its_repetitions_were_apart() -> None:
    assert shown(measured(1.234, 1.1, 1.5)) == "1.23 MB/s (1.10-1.50)"
    assert shown(measured(1234.5)) == "1,234 MB/s"
    assert shown(measured(0.0123, unit="ms")) == "0.0123 ms"


def test_the_printed_report_holds_machine_text_rows_and_remarks() -> None:
    screen = io.StringIO()
    rows = [Row("a.b", "fill", "tiktoken", measured(8), measured(2), at_least(4), remark="bounded")]
    print_report(Console(file=screen, width=160), rows, facts={"machine": "two cores"}, corpus=CORPUS)
    printed = screen.getvalue()
    for said in (
        "two cores",
        "1.5 MB",
        "p 1",
        "tiktoken",
        f"4.00 {TIMES}",
        f"≥ 4 {TIMES}",
        "met",
        "a.b: bounded",
        "1 of 1 goals met",
    ):
        assert said in printed


def test_by_how_much_a_goal_is_missed_is_computed_from_the_rows_own_figures() -> None:
    row = Row("a", "w", "t", measured(8), measured(2), at_least(4), remark="bounded")
    assert row.remarks == ["bounded"]
    missed = replace(row, goal=at_least(5))
    assert missed.remarks[1] == "not met: 10.0 MB/s or more would be needed beside 2.00, 8.00 were measured"
    assert replace(missed, ours=measured(9)).shortfall.endswith("9.00 were measured")
    assert missed.to_object()["remark"].startswith("bounded; not met: 10.0 MB/s")
    alone = Row("a", "w", "-", measured(3, unit="ms"), goal=at_most(1, "ms"))
    assert alone.shortfall == "not met: 1.00 ms or less would be needed, 3.00 were measured"


def test_a_goal_that_is_missed_by_less_than_the_repetitions_differ_says_so() -> None:
    row = Row("a", "w", "t", measured(7, 8, 11), measured(2), at_least(5))
    assert "further apart" in row.shortfall
    assert "further apart" not in replace(row, ours=measured(7, 8, 9)).shortfall


def test_a_row_in_one_line_says_figures_ratio_goal_and_verdict() -> None:
    row = Row("a.b", "w", "t", measured(8), measured(2), at_least(5))
    assert one_line(row) == f"a.b: 8.00 MB/s, other 2.00 MB/s, 4.00 {TIMES}, goal ≥ 5 {TIMES}: NOT MET"
    assert one_line(replace(row, goal=None, theirs=None)) == "a.b: 8.00 MB/s"
    assert one_line(not_measured("c", "w", "x", why="no network")) == "c: not measured: no network"


def test_without_goals_none_passes_for_met() -> None:
    assert summary([Row("k", "w", "-", measured(1))]).startswith("no goal is judged")


def test_json_holds_every_single_measurement(tmp_path: Path) -> None:
    rows = [Row("a", "w", "t", measured(8, 9, 10), measured(2), at_least(4), cold=measured(1))]
    written = write_json(tmp_path / "new" / "r.json", rows, facts={"machine": "m"}, corpus=CORPUS)
    (row,) = json.loads((tmp_path / "new" / "r.json").read_text())["rows"]
    assert json.loads(written)["rows"] == [row]
    assert row["ours"] == {"median": 9, "unit": "MB/s", "values": [8, 9, 10]}
    assert row["cold"]["median"] == 1
    assert row["ratio"] == 4.5
    assert row["verdict"] == "met"


def test_the_page_of_the_documentation_has_a_line_for_every_row() -> None:
    rows = [
        Row("a.b", "fill", "tiktoken", measured(8), measured(2), at_least(4)),
        not_measured("c", "w", "x", why="no"),
    ]
    page = markdown(rows, facts={"machine": "two cores"}, corpus=CORPUS, command="bench")
    assert f"| fill | tiktoken | 8.00 MB/s |  | 2.00 MB/s | 4.00 {TIMES} | ≥ 4 {TIMES} | met |" in page
    assert "| w | x |  |  |  |  |  | not measured |" in page
    assert "- machine: two cores" in page
    assert "- `c`: not measured: no" in page
