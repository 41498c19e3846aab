"""Entry point: `python -m tests.campaign`. Exit code 0 only if nothing was lost, stale, wrong or dead."""

import argparse
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, get_args

import orjson
from rich.console import Console

from tests.campaign.faults import fault_kinds
from tests.campaign.run import Plan, run_campaign
from tests.campaign.stack import DatabaseKind

_COLUMNS = 160


def main(arguments: Sequence[str]) -> int:
    """Run a campaign, print what came of it, and return the exit code."""
    options = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)  # also Ctrl-C, which is ignored where a script began this in its background
    for name in [name for name in os.environ if name.startswith("FOREFILL_")]:
        del os.environ[name]  # settings of another deployment
    plan = Plan(
        options.database,
        options.minutes,
        options.seed,
        documents=options.documents,
        settle_s=options.settle,
        logs=options.logs,
        kinds=options.faults,
    )
    report = run_campaign(plan, out=lambda line: print(line, file=sys.stderr, flush=True))
    if options.json:
        print(orjson.dumps(report.to_object(), option=orjson.OPT_INDENT_2).decode())
    else:
        report.print(Console(width=None if sys.stdout.isatty() else _COLUMNS))
    return 0 if report.holds else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaign",
        description="Injects faults into a stack of its own while it is written to, read and operated; then audits it.",
    )
    parser.add_argument("--database", choices=get_args(DatabaseKind), default="sqlite")
    parser.add_argument("--minutes", type=float, default=20.0, help="of faults; start and audit come on top")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31), help="draws the faults and the work")
    parser.add_argument("--documents", type=int, default=150)
    parser.add_argument("--settle", type=float, default=420.0, metavar="SECONDS", help="for everything to end after it")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep the logs of all processes there")
    parser.add_argument(
        "--faults", nargs="+", default=(), choices=fault_kinds(), metavar="KIND", help="only these, as the report says"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def _end(number: int, _frame: object) -> NoReturn:
    """A request to end unwinds, so that everything is stopped and nothing stays mounted."""
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
