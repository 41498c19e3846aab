"""Entry point: `python -m demo`, in the checkout. Exit code 0 only if every claim held."""

from pipeline.ending import end_at_once

if __name__ == "__main__":
    end_at_once()

import argparse  # whatever is loaded, even this, after the line above
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from demo.checks import CannotGoOn, Checks
from demo.screen import Screen
from demo.stack import forefill_command
from demo.story import tell


def main(arguments: Sequence[str]) -> int:
    """Show everything in a temporary folder and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m demo", description="The main job, shown and checked.")
    parser.add_argument("--llm", action="store_true", help="also have a small real engine answer two questions")
    llm = parser.parse_args(arguments).llm
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    screen = Screen()
    try:
        command = forefill_command()
    except CannotGoOn as error:
        screen.title(f"demo: {error}")
        return 1
    return show(screen, command, llm=llm)


def show(screen: Screen, command: Sequence[str], *, llm: bool = False) -> int:
    """Tell the story, say how it went, and return the exit code.

    The folder is removed; after a failure it is kept, for its logs.
    """
    began = time.monotonic()
    checks = Checks(screen.claim)
    folder = Path(tempfile.mkdtemp(prefix="forefill-demo-"))
    screen.title("Forefill: a corpus tokenized before anyone asks about it")
    try:
        tell(screen, checks, folder, command=command, llm=llm)
    finally:
        if checks.all_held:
            shutil.rmtree(folder)
        else:
            screen.line(f"logs are kept in {folder}")
    return conclude(screen, checks, spent_s=time.monotonic() - began)


def conclude(screen: Screen, checks: Checks, *, spent_s: float) -> int:
    """Say how many claims held, and return the exit code: 0 if all did."""
    held = len(checks.claims) - len(checks.failed)
    screen.title(f"\n{held} of {len(checks.claims)} claims held, in {spent_s:.0f} s")
    for claim in checks.failed:
        screen.claim(claim)
    return 0 if checks.all_held else 1


def _end(number: int, _frame: object) -> NoReturn:
    """A request to end unwinds like Ctrl-C, so that everything is stopped."""
    sys.exit(128 + number)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
