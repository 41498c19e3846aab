"""`forefill bench`: the benchmark table on this machine. This process becomes the benchmark.

Benchmarks start servers and workers with the tests' tools and compare with libraries that nobody needs otherwise: they
are part of the checkout, not of the installed package.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import pipeline
from pipeline.cli.invocation import Call, command
from pipeline.errors import ConfigurationError


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(bench)


def bench(
    call: Call,
    quick: Annotated[bool, typer.Option("--quick", help="On a few megabytes, without goals: does all run?")] = False,
    rows: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only these rows; may be repeated.")] = None,
    million: Annotated[bool, typer.Option("--million", help="Fill a corpus of a million passages, too.")] = False,
    plots: Annotated[bool, typer.Option("--plots", help="Draw docs/benchmarks/*.svg.")] = False,
) -> None:
    """Measure Forefill beside what people would do instead, in the checkout: about half an hour, 280 MB to download."""
    root = checkout()
    flags = {"--quick": quick, "--million": million, "--plots": plots, "--json": call.output.as_json}
    chosen = [flag for flag, is_set in flags.items() if is_set]
    _become(root, [*chosen, *(("--rows", *rows) if rows else ())])


def checkout() -> Path:
    """Return the folder of the checkout that this installation belongs to.

    Raises:
        ConfigurationError: It belongs to none; the message says what to do.
    """
    root = Path(pipeline.__file__).resolve().parents[1]
    if not (root / "benchmarks" / "__main__.py").is_file():
        raise ConfigurationError(
            "the benchmarks are in the repository, not in the installed package: in a checkout, run `make env` and "
            "then `.venv/bin/forefill bench`"
        )
    return root


def _become(root: Path, arguments: list[str]) -> NoReturn:
    os.chdir(root)
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *arguments])  # noqa: S606  # our own interpreter
