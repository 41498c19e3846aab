"""Entry point: finds the command, and turns whatever went wrong into one sentence and an exit code.

Exit codes: 0 all of it succeeded, 1 something did not, 2 the command line is wrong, 130 Ctrl-C, 143 SIGTERM. While a
command is loaded and when its work is done, SIGTERM and Ctrl-C end the process at once; between, they unwind it.
"""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from types import TracebackType
from typing import NoReturn

import typer
from sqlalchemy.exc import DBAPIError

from pipeline.cli.invocation import new_root
from pipeline.ending import end_at_once
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
_VERSION = "--version"


def main() -> NoReturn:
    """Run the command line of this process."""
    sys.excepthook, sys.unraisablehook = _end_quietly, _end_for_ignored
    sys.exit(run(sys.argv[1:], loading=collector_at_rest(), working=_unwound_by_signals()))


def run(
    arguments: Sequence[str],
    *,
    loading: AbstractContextManager[None] | None = None,
    working: AbstractContextManager[None] | None = None,
) -> int:
    """Run one command line and return its exit code; errors are said on standard error.

    Args:
        arguments: What stands behind `forefill`.
        loading: Entered while the command's module is imported.
        working: Entered while the command runs.
    """
    try:
        with loading or nullcontext():
            app = build_app(arguments)
        with working or nullcontext():
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
    is_about_itself = not named and _VERSION in arguments
    modules = [COMMANDS[named]] if named in COMMANDS else list(dict.fromkeys(COMMANDS.values()))
    modules = [] if is_about_itself else modules
    app = new_root("Tokenizes a corpus ahead of time and answers questions with exact token ids from a cache.")
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


@contextmanager
def _unwound_by_signals() -> Iterator[None]:
    """Let signals unwind what runs within, so that an open run is sealed and a terminal is left in order."""
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        end_at_once()


def _stop(_number: int, _frame: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _end_quietly(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say nothing of a Ctrl-C that came where nobody catches it; everything else is a fault of ours and is shown."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)


def _end_for_ignored(ignored: "sys.UnraisableHookArgs") -> None:
    """A Ctrl-C that came where errors cannot be raised, as in a weak reference's callback, ends the process too."""
    if isinstance(ignored.exc_value, KeyboardInterrupt):
        end_at_once()
        signal.raise_signal(signal.SIGINT)
    sys.__unraisablehook__(ignored)
