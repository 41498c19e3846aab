"""What the demo shows: colours and progress bars on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from demo.checks import Claim

Advance: TypeAlias = Callable[[int], None]
"""Takes how many of all are done."""

_PLAIN_INTERVAL_S = 2.0
_PLAIN_WIDTH = 120
_INDENT = "   "


class Screen:
    """The demo's standard output."""

    def __init__(self) -> None:
        stream = sys.stdout
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no ✓ shows a question mark
        is_terminal = stream.isatty()
        self._console = Console(
            force_terminal=is_terminal,
            width=None if is_terminal else _PLAIN_WIDTH,
            highlight=False,
            markup=False,
            emoji=False,
        )
        self._steps = 0

    def title(self, text: str) -> None:
        """Say what this is."""
        self._print(text, "bold")

    def step(self, text: str) -> None:
        """Begin the next numbered part."""
        self._steps += 1
        self._print(f"\n{self._steps}  {text}", "bold cyan")

    def command(self, text: str) -> None:
        """Show what a user would type."""
        self._print(f"{_INDENT}$ {text}", "dim")

    def line(self, text: str) -> None:
        """Say something that is no claim."""
        self._print(f"{_INDENT}{text}")

    def claim(self, claim: Claim) -> None:
        """Show a claim and whether it held; if not, what was expected and seen."""
        if claim.held:
            self._print(f"{_INDENT}✓ {claim.sentence}", "green")
            return
        self._print(f"{_INDENT}✗ {claim.sentence}", "bold red")
        self._print(f"{_INDENT}  expected: {claim.expected}", "red")
        self._print(f"{_INDENT}  seen:     {claim.seen}", "red")

    def table(self, table: Table) -> None:
        """Show the table."""
        self._console.print()
        self._console.print(table)

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show that something is awaited for the life of a `with` block."""
        if self._console.is_terminal:
            with self._console.status(Text(text)):
                yield
            return
        self.line(f"{text} …")
        yield

    @contextmanager
    def progress(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        """Yield a function that takes how many of `total` are done; other lines go above the bar."""
        if not self._console.is_terminal:
            yield self._plain_progress(title, total, unit)
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)

    def _plain_progress(self, title: str, total: int, unit: str) -> Advance:
        said_at = time.monotonic()

        def say(done: int) -> None:
            nonlocal said_at
            if time.monotonic() - said_at >= _PLAIN_INTERVAL_S:
                said_at = time.monotonic()
                self.line(f"{title}: {done:,} of {total:,} {unit}")

        return say

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(text, style=style), soft_wrap=True)
