"""What every command shares: `--data-dir` and `--json` before or after it, settings, output, and the database.

A command is a function whose first argument is a `Call`; `command` adds the shared options to its signature.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from pipeline.cli.output import Output
from pipeline.database import Database, create_database_engine
from pipeline.errors import ConfigurationError
from pipeline.services.schema import require_file, require_newest
from pipeline.settings import DATA_DIR_VARIABLE, ENVIRONMENT_FILE, Settings, load_settings
from pipeline.telemetry.logs import configure_logging
from pipeline.version import __version__

P = ParamSpec("P")

DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Work with the stack that keeps its data in this folder."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the HTTP answer's object instead of text.")]


@dataclass(frozen=True, slots=True)
class Common:
    """Shared options as given so far, from the outermost group inwards."""

    data_dir: Path | None = None
    as_json: bool = False

    def refined(self, *, data_dir: Path | None, as_json: bool) -> "Common":
        """Return these with those given further inside."""
        return Common(data_dir or self.data_dir, as_json or self.as_json)


@dataclass(frozen=True, slots=True)
class Call:
    """One invocation of one command."""

    settings: Settings
    output: Output

    @contextmanager
    def database(self, *, durable: bool = False) -> Iterator[Database]:
        """Open the database at its newest revision for the life of a `with` block.

        Args:
            durable: Whether commits are promised to the user.

        Raises:
            ConfigurationError: There is none, or it is not at the newest revision; the message says what to do.
            Unavailable: It did not answer.
        """
        require_database_file(self.settings)
        database = Database(create_database_engine(self.settings.database_url, pool_size=2, durable=durable))
        try:
            require_newest(database)
            yield database
        finally:
            database.close()


def _show_version(wanted: bool) -> None:
    if wanted:
        Output(as_json=False).line(f"forefill {__version__}")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show it and exit.")]


def new_root(help_text: str) -> typer.Typer:
    """Return the outermost group, which also says its version."""
    app = new_group(help_text)

    @app.callback()
    def remember(
        context: typer.Context,
        data_dir: DataDir = None,
        as_json: AsJson = False,
        version: Version = False,  # noqa: ARG001  # its callback has acted
    ) -> None:
        context.obj = Common(data_dir, as_json)

    return app


def new_group(help_text: str) -> typer.Typer:
    """Return a group of commands that takes the shared options too."""
    app = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def remember(context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
        context.obj = (context.obj or Common()).refined(data_dir=data_dir, as_json=as_json)

    return app


def command(
    app: typer.Typer, name: str | None = None, **options: Any
) -> Callable[[Callable[Concatenate[Call, P], None]], Callable[..., None]]:
    """Register a function as a command of a group; its `Call` argument becomes the shared options.

    Args:
        app: The group.
        name: What users type, by default the function's name.
        options: Passed on to typer.
    """

    def register(function: Callable[Concatenate[Call, P], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def invoke(context: typer.Context, data_dir: Path | None, as_json: bool, **arguments: Any) -> None:
            common = (context.obj or Common()).refined(data_dir=data_dir, as_json=as_json)
            function(open_call(common), **arguments)  # type: ignore[call-arg]  # typer passes keywords only

        signature = inspect.signature(function)
        own = list(signature.parameters.values())[1:]
        shared = inspect.signature(_shared)
        invoke.__signature__ = signature.replace(parameters=[*own, *shared.parameters.values()])  # type: ignore[attr-defined]  # read by inspect
        app.command(name, **options)(invoke)
        return invoke

    return register


def _shared(*, context: typer.Context, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """Holds the signature of the shared options."""


def open_call(common: Common) -> Call:
    """Point this process and the ones it starts to the data directory, and read the settings.

    Raises:
        ConfigurationError: The folder holds no stack, or a setting is malformed.
    """
    configure_logging("ERROR")  # a command's own words are for its user; logs are for services
    if common.data_dir is not None:
        os.environ[DATA_DIR_VARIABLE] = str(common.data_dir.absolute())
    named = os.environ.get(DATA_DIR_VARIABLE)
    if named and not (Path(named) / ENVIRONMENT_FILE).is_file():
        raise ConfigurationError(f"{named} is no data directory: there is no {ENVIRONMENT_FILE} in it")
    return Call(load_settings(), Output(as_json=common.as_json))


def require_database_file(settings: Settings) -> None:
    """Refuse a SQLite file that does not exist, since opening it would leave an empty one behind.

    Raises:
        ConfigurationError: It does not exist.
    """
    instead = "run `forefill db upgrade`, or name another one with --data-dir or FOREFILL_DATABASE_URL"
    require_file(settings.database_url, otherwise=instead)
