"""How far a command has come: a bar on a terminal, a plain line now and then elsewhere. Both on standard error."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

from pipeline.cli.output import Output, printable

Report: TypeAlias = Callable[[float | None, str], None]
"""Takes the share that is done (0 to 1, None when unknown) and what to say about it."""

PLAIN_INTERVAL_S = 2.0
"""Seconds between two plain lines, and before the first."""


@contextmanager
def show_progress(output: Output, title: str) -> Iterator[Report]:
    """Yield a function to report progress with; the bar is gone when the block ends."""
    if output.notes.is_terminal:
        with _bar(output) as bar:
            task = bar.add_task(title, total=None, detail="")

            def draw(share: float | None, text: str) -> None:
                total = None if share is None else 1.0
                bar.update(task, total=total, completed=share, detail=printable(text))

            yield draw
        return
    yield _plain(output, title)


def _bar(output: Output) -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=output.notes, transient=True)


def _plain(output: Output, title: str) -> Report:
    said_at, said = time.monotonic(), ""

    def say(share: float | None, text: str) -> None:
        nonlocal said_at, said
        if text == said or time.monotonic() - said_at < PLAIN_INTERVAL_S:
            return
        said_at, said = time.monotonic(), text
        percent = "" if share is None else f"{share:.0%}, "
        output.note(f"{title}: {percent}{text}")

    return say
