"""Entry point: `python -m benchmarks`, in the checkout. Exit code 0 if every row could be run, goals met or not."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from benchmarks.bench import Bench
from benchmarks.corpus import cache_folder, open_corpus
from benchmarks.debian import NoPackagesError
from benchmarks.machine import facts
from benchmarks.report import Row, markdown, not_measured, one_line, print_report, write_json
from benchmarks.sizes import FULL, QUICK

ROWS = ("fill", "scaling", "lookup", "memory", "hit_rate", "retrieve")
"""Modules of `benchmarks.rows`, in the order of the table."""

PLOTS = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"
_TABLE_COLUMNS = 200


def main(arguments: Sequence[str]) -> int:
    """Measure what was asked for, print the table, write it down, and return the exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    for name in [name for name in os.environ if name.startswith("FOREFILL_")]:
        del os.environ[name]  # settings of another deployment
    screen = Console(stderr=True)
    try:
        corpus = open_corpus(quick=options.quick)
    except NoPackagesError as error:
        print(f"benchmarks: {error}; --quick needs none", file=sys.stderr)
        return 1
    before = facts()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="forefill-bench-"))
    bench = Bench(
        corpus,
        QUICK if options.quick else FULL,
        folder,
        say=lambda said: screen.print(f"[{time.monotonic() - began:6.0f} s] {said}", highlight=False),
        million=options.million,
    )
    printed = screen if options.json else Console(soft_wrap=True)
    try:
        rows, failed = measure(
            bench, options.rows or ROWS, tell=lambda row: printed.print(one_line(row), highlight=False, markup=False)
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    path = options.output or cache_folder() / f"results-{time.strftime('%Y%m%d-%H%M%S')}.json"
    written = write_json(path, rows, facts=before, corpus=corpus.describe())
    if options.json:
        print(written)
    else:
        table = Console(width=None if sys.stdout.isatty() else _TABLE_COLUMNS)
        print_report(table, rows, facts=before, corpus=corpus.describe())
    screen.print(f"written to {path}", highlight=False)
    if options.plots:
        from benchmarks.plots import draw  # noqa: PLC0415  # only plots need the library

        plots = draw(rows, PLOTS)
        command = f"python -m benchmarks {' '.join(arguments)}"
        page = markdown(rows, facts=before, corpus=corpus.describe(), command=command)
        pictures = "".join(f"\n![{plot.stem}]({plot.name})\n" for plot in plots)
        (PLOTS / "README.md").write_text(page + pictures, encoding="utf-8")
        screen.print(f"written to {PLOTS}: README.md, {', '.join(plot.name for plot in plots)}", highlight=False)
    return 1 if failed else 0


def measure(bench: Bench, names: Sequence[str], *, tell: Callable[[Row], None]) -> tuple[list[Row], list[str]]:
    """Return the rows of these modules, and the names of those that failed: one must not cost the others.

    Args:
        bench: What to measure on. The goals are for the whole text; a run on less of it is not judged.
        names: Of the modules.
        tell: Takes each row as soon as it is measured.
    """
    rows: list[Row] = []
    failed: list[str] = []

    def keep(row: Row) -> None:
        rows.append(row if bench.sizes.is_judged else replace(row, goal=None))
        tell(rows[-1])

    for name in names:
        try:
            for row in import_module(f"benchmarks.rows.{name}").measure(bench):
                keep(row)
        except Exception as error:  # noqa: BLE001  # see the docstring
            failed.append(name)
            bench.say(f"{name} FAILED: {type(error).__name__}: {error}")
            keep(not_measured(name, name, "", why=f"{type(error).__name__}: {error}"))
    return rows, failed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Forefill beside what people would do instead, on this machine."
    )
    parser.add_argument("--quick", action="store_true", help="10 MB of text, few repetitions, no goals: does all run?")
    parser.add_argument("--rows", nargs="+", action="extend", choices=ROWS, metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--million", action="store_true", help="also fill a corpus of a million passages, once")
    parser.add_argument("--plots", action="store_true", help="write table and plots into docs/benchmarks")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of the table")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the JSON goes; by default the user's cache")
    return parser


def _end(number: int, _frame: object) -> NoReturn:
    """A request to end unwinds like Ctrl-C, so that everything is stopped."""
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
