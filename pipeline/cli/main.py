"""Entry point: finds the command, and turns whatever went wrong into one sentence and an exit code.

Exit codes: 0 all of it succeeded, 1 something did not, 2 the command line is wrong, 130 Ctrl-C, 143 SIGTERM.
"""

import signal
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from pipeline.cli.invocation import new_group
from pipeline.errors import ForefillError, operator_sentence
from pipeline.loading import collector_at_rest

COMMANDS = {
    "up": "up",
    "db": "database",
    "corpus": "corpora",
    "keys": "keys",
    "spec": "specs",
    "ingest": "ingest",
    "delete": "delete",
    "retokenize": "retokenize",
    "verify": "retokenize",
    "gc": "retokenize",
    "runs": "runs",
    "retrieve": "retrieve",
    "generate": "generate",
    "status": "status",
    "explain": "explain",
    "cache": "cache",
    "doctor": "doctor",
    "bench": "bench",
    "api": "processes",
    "worker": "processes",
    "dispatcher": "processes",
    "beat": "processes",
    "flower": "processes",
    "qdrant": "processes",
}
"""Which module of this package registers a command, in the order of the help."""

_TAKES_VALUE = "--data-dir"


def main() -> NoReturn:
    """Run the command line of this process."""
    signal.signal(signal.SIGTERM, _stop)
    sys.exit(run(sys.argv[1:], loading=collector_at_rest()))


def run(arguments: Sequence[str], *, loading: AbstractContextManager[None] | None = None) -> int:
    """Run one command line and return its exit code; errors are said on standard error.

    Args:
        arguments: What stands behind `forefill`.
        loading: Entered while the command's module is imported.
    """
    try:
        with loading or nullcontext():
            app = build_app(arguments)
        code = app(args=list(arguments), prog_name="forefill", standalone_mode=False)
    except typer.TyperException as error:
        # A command line that cannot be understood; without any argument the message is the help itself.
        message = error.format_message()
        _complain(message if "\n" in message else f"{message} See `forefill --help`.")
        return error.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (ForefillError, DBAPIError, OSError, EOFError, typer.Abort) as error:
        _complain(_sentence(error))
        return 1
    return int(code or 0)


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """Build the application; with one known command only that one's module, since all of them take a second to load."""
    named = _first_word(arguments)
    modules = [COMMANDS[named]] if named in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    app = new_group("Tokenizes a corpus ahead of time and answers questions with exact token ids from a cache.")
    for module in modules:
        import_module(f"pipeline.cli.{module}").register(app)
    return app


def _first_word(arguments: Sequence[str]) -> str:
    words = iter(arguments)
    for word in words:
        if word == _TAKES_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return ""


def _sentence(error: Exception) -> str:
    match error:
        case DBAPIError():
            return f"the database refused: {error.orig}"
        case ForefillError():
            return operator_sentence(error)
        case OSError():
            reason = error.strerror or type(error).__name__
            return f"{error.filename}: {reason}" if error.filename else reason
        case EOFError() | typer.Abort():
            return "stopped: nothing was changed"
        case _:
            return str(error)


def _complain(message: str) -> None:
    print(f"forefill: {message}" if "\n" not in message else message, file=sys.stderr)  # noqa: T201  # the user's line


def _stop(_number: int, _frame: object) -> NoReturn:
    """SIGTERM unwinds like Ctrl-C, so that an open run is sealed and a terminal is left in order."""
    sys.exit(128 + signal.SIGTERM)
