"""What a command says: results on standard output, everything else on standard error.

Control codes go to terminals only. Whatever comes from documents is printed with its control characters escaped, so
that no document id can move a cursor.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.services.presenting import json_line


class Output:
    """The two streams of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        """Whether results are JSON, one object a line."""
        self.results = _console(error=False)
        """Standard output."""
        self.notes = _console(error=True)
        """Standard error."""

    def line(self, text: str = "") -> None:
        """Print one line of a result for people; nothing under `--json`."""
        if not self.as_json:
            _print(self.results, text)

    def part(self, text: str) -> None:
        """Print part of a text for people and stay behind it; nothing under `--json`."""
        if not self.as_json:
            _print(self.results, text, end="")

    def emit(self, value: Mapping[str, Any]) -> None:
        """Print one object, numpy arrays and all, as a line of JSON; nothing without `--json`."""
        if self.as_json:
            self.write(json_line(value) + b"\n")

    def write(self, data: bytes) -> None:
        """Write bytes to standard output as they are."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def note(self, text: str) -> None:
        """Say something that is no result, on standard error."""
        _print(self.notes, text)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print rows under headers for people; numbers are set to the right. Nothing under `--json`."""
        if self.as_json:
            return
        cells = [[printable(_shown(value)) for value in row] for row in rows]
        numeric = [all(isinstance(row[column], int | float) for row in rows) for column in range(len(headers))]
        if self.results.is_terminal:
            self.results.print(_rich_table(headers, cells, numeric))
            return
        widths = [max(len(row[column]) for row in [headers, *cells]) for column in range(len(headers))]
        for row in [headers, *cells]:
            columns = zip(row, widths, numeric, strict=True)
            padded = [text.rjust(width) if right else text.ljust(width) for text, width, right in columns]
            self.line("  ".join(padded).rstrip())


def printable(text: str) -> str:
    """Return a text with everything escaped that a terminal might act upon."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def _shown(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.3f}"
        case _:
            return str(value)


def _console(*, error: bool) -> Console:
    stream = sys.stderr if error else sys.stdout
    return Console(stderr=error, force_terminal=stream.isatty(), highlight=False, markup=False, emoji=False)


def _print(console: Console, text: str, *, end: str = "\n") -> None:
    console.print(Text("\n".join(printable(line) for line in text.split("\n"))), soft_wrap=True, end=end)


def _rich_table(headers: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header, right in zip(headers, numeric, strict=True):
        table.add_column(header, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table
