"""Rows are told when they are measured, quick runs are not judged, and a failure costs nobody else's rows."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.__main__ import measure
from benchmarks.bench import Bench
from benchmarks.harness import Measured
from benchmarks.report import Row, at_least, summary
from benchmarks.rivals.llamaindex import install_command
from benchmarks.sizes import FULL, QUICK, Sizes


def _row(key: str) -> Row:
    return Row(key, "w", "a", Measured((1.0,), "s"), goal=at_least(1, "s"))


def _bench(sizes: Sizes) -> Bench:
    corpus: Any = None
    return Bench(corpus, sizes, Path("nowhere"), say=lambda _said: None)


@pytest.fixture
def rows_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], Iterator[Row]]], None]:
    """Gives a module of rows a name for one test."""

    def register(name: str, rows: Callable[[], Iterator[Row]]) -> None:
        module: Any = SimpleNamespace(measure=lambda _bench: rows())
        monkeypatch.setitem(sys.modules, f"benchmarks.rows.{name}", module)

    return register


def test_a_row_is_told_before_the_next_one_is_measured(rows_of: Callable[..., None]) -> None:
    told: list[str] = []

    def rows() -> Iterator[Row]:
        yield _row("first")
        assert told == ["first"]
        yield _row("second")

    rows_of("one", rows)
    found, failed = measure(_bench(FULL), ["one"], tell=lambda row: told.append(row.key))
    assert (told, failed) == (["first", "second"], [])
    assert [row.verdict for row in found] == ["met", "met"]


def test_a_quick_run_judges_nothing_by_the_goals_of_the_whole_text(rows_of: Callable[..., None]) -> None:
    rows_of("one", lambda: iter([_row("first")]))
    found, _ = measure(_bench(QUICK), ["one"], tell=lambda _row: None)
    assert [(row.goal, row.verdict) for row in found] == [(None, "-")]
    assert "no goal is judged" in summary(found)


def test_a_module_that_fails_keeps_the_rows_it_had_measured(rows_of: Callable[..., None]) -> None:
    def rows() -> Iterator[Row]:
        yield _row("first")
        raise RuntimeError("out of memory")

    rows_of("one", rows)
    rows_of("two", lambda: iter([_row("other")]))
    found, failed = measure(_bench(FULL), ["one", "two"], tell=lambda _row: None)
    assert [row.key for row in found] == ["first", "one", "other"]
    assert failed == ["one"]
    assert "out of memory" in found[1].remark


def test_the_rivals_files_have_no_second_name_which_nltk_refuses() -> None:
    command = [str(part) for part in install_command(Path("python"))]
    if "uv" in command:
        assert command[command.index("--link-mode") + 1] == "copy"
