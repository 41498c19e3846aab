"""`forefill up`: the whole embedded stack in the foreground, on loopback only."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import orjson
import typer

from pipeline.cli.invocation import AsJson, Common, DataDir
from pipeline.cli.output import Output
from pipeline.cli.progress import show_progress
from pipeline.cli.stack.child import Child
from pipeline.cli.stack.contradictions import require_consistent
from pipeline.cli.stack.environment import StackSettings, Wishes, choose_database, prepare_settings, read_variables
from pipeline.cli.stack.flower_conf import USER
from pipeline.cli.stack.folder import owned_folder
from pipeline.cli.stack.given import keep_given
from pipeline.cli.stack.ports import LOOPBACK
from pipeline.cli.stack.query_check import Inquirer
from pipeline.cli.stack.services import Plan, auth_file
from pipeline.cli.stack.supervisor import Supervisor
from pipeline.database import Database, create_database_engine
from pipeline.errors import ConfigurationError, Unavailable, operator_sentence
from pipeline.services.schema import upgrade
from pipeline.settings import DATA_DIR_VARIABLE, Settings, load_settings
from pipeline.telemetry.logs import configure_logging


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    context: typer.Context,
    data_dir: DataDir = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Where the API listens; 0 takes a free one. By default FOREFILL_API_PORT, or 8080."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, max=256, help="Children of each of the two workers; by default FOREFILL_WORKER_CONCURRENCY."
        ),
    ] = None,
    api_processes: Annotated[
        int | None,
        typer.Option(min=1, max=64, help="Processes that serve the API; by default FOREFILL_API_PROCESSES."),
    ] = None,
    flower_port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Where Flower listens; by default a free one, then kept.")
    ] = None,
    cache_memory: Annotated[
        int,
        typer.Option(min=16, metavar="MIB", envvar="FOREFILL_CACHE_MEMORY_MIB", help="Most that the cache may hold."),
    ] = 1024,
    as_json: AsJson = False,
) -> None:
    """Run everything on this machine until Ctrl-C; print one line of JSON when it is ready."""
    configure_logging("ERROR")
    common = (context.obj or Common()).refined(data_dir=data_dir, as_json=as_json)
    output = Output(as_json=common.as_json)
    folder = common.data_dir or _named_folder()
    if folder is None:
        raise ConfigurationError("name the folder for the data: forefill up --data-dir DIR")
    with _signals() as stop, owned_folder(folder) as owned:
        kept = read_variables(owned)
        given = _given_settings()
        require_consistent(given, kept, owned)
        database_url = choose_database(
            owned, kept, given=given.database_url if "database_url" in given.model_fields_set else None
        )
        wishes = Wishes(database_url, given.api_port if port is None else port, flower_port)
        with closing(_open_database(database_url)) as database:
            stack = prepare_settings(owned, kept, wishes)
            flags = _flags(workers=workers, api_processes=api_processes)
            keep_given(owned, given, flags=flags)
            os.environ.update(_child_environment(stack, flags))
            output.note(f"starting in {owned}; logs are in {owned / 'logs'}")
            upgrade(database)
            _run(Plan(stack, load_settings(owned), database, Inquirer(), cache_mib=cache_memory), output, stop)


def _given_settings() -> Settings:
    """Return what the environment and `.env` say; the settings of another stack are not this one's.

    Raises:
        ConfigurationError: One of them is malformed.
    """
    os.environ.pop(DATA_DIR_VARIABLE, None)
    return load_settings()


def _open_database(url: str) -> Database:
    """Open the database; one of the user's own must answer before anything is written.

    Raises:
        ConfigurationError: It does not.
    """
    database = Database(create_database_engine(url))
    try:
        if not url.startswith("sqlite:"):
            database.ping()
    except Unavailable as error:
        database.close()
        raise ConfigurationError(f"FOREFILL_DATABASE_URL: {operator_sentence(error)}") from error
    return database


def _run(plan: Plan, output: Output, stop: threading.Event) -> None:
    """Start everything, say that it is ready, watch it until told to stop, and end it."""
    logs = plan.stack.folder / "logs"
    logs.mkdir(mode=0o700, exist_ok=True)
    children = [Child(service, os.environ, logs / f"{service.label}.log") for service in plan.services()]
    supervisor = Supervisor(children, stop=stop, say=output.note)
    try:
        with show_progress(output, "starting") as report:
            works = supervisor.start(
                also=lambda: plan.inquirer.answers_queries(plan.stack.api_port, plan.database), report=report
            )
        if works:
            _announce(ready_line(plan, children), output, plan.stack.folder)
            supervisor.watch()
        output.note("stopping")
    finally:
        supervisor.stop_all()


def ready_line(plan: Plan, children: list[Child]) -> dict[str, object]:
    """Return what the ready line says: where everything is, and the processes."""
    kinds: dict[str, list[int]] = {}
    for child in children:
        kinds.setdefault(child.service.kind, []).extend(child.service.pids(child))
    stack, several = plan.stack, ("api", "workers")
    metrics_ports = (stack.interactive_metrics_port, stack.bulk_metrics_port)
    return {
        "ready": True,
        "api": f"http://{LOOPBACK}:{stack.api_port}",
        "flower": f"http://{LOOPBACK}:{stack.flower_port}",
        "flower_auth_file": str(auth_file(stack.folder)),
        "broker": stack.variables["FOREFILL_BROKER_URL"],
        "cache": stack.variables["FOREFILL_CACHE_URL"],
        "qdrant": stack.variables["FOREFILL_QDRANT_URL"],
        "database": plan.settings.database_url,
        "metrics": [f"http://{LOOPBACK}:{port}/metrics" for port in (stack.api_port, *metrics_ports)],
        "pids": {
            "supervisor": os.getpid(),
            **{kind: pids if kind in several else pids[0] for kind, pids in kinds.items()},
        },
    }


def _announce(line: dict[str, object], output: Output, folder: Path) -> None:
    output.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    if output.notes.is_terminal and not output.as_json:
        output.note(
            f"""
Forefill is ready. Ctrl-C stops it; everything is kept in {folder}.
  status page   {line["api"]}/
  API           {line["api"]}/docs
  Flower        {line["flower"]}  user {USER}, password in {line["flower_auth_file"]}

In another terminal:
  forefill --data-dir {folder} ingest FOLDER --corpus docs --wait
  forefill --data-dir {folder} retrieve "a question" --corpus docs
  forefill --data-dir {folder} status --watch
"""
        )


def _flags(*, workers: int | None, api_processes: int | None) -> dict[str, str]:
    """Return the settings that flags stand for."""
    numbers = {"FOREFILL_WORKER_CONCURRENCY": workers, "FOREFILL_API_PROCESSES": api_processes}
    return {name: str(number) for name, number in numbers.items() if number is not None}


def _child_environment(stack: StackSettings, flags: dict[str, str]) -> dict[str, str]:
    """Return what overrules the environment and `.env`: the stack uses its own stores, wherever else others are."""
    return {
        **stack.variables,
        **flags,
        DATA_DIR_VARIABLE: str(stack.folder),
        "REMAP_SIGTERM": "SIGQUIT",  # workers give jobs back at once instead of waiting for them
    }


def _named_folder() -> Path | None:
    named = os.environ.get(DATA_DIR_VARIABLE)
    return Path(named) if named else None


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Turn the signals that ask for an end into an event, for the life of a `with` block."""
    stop = threading.Event()
    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda _number, _frame: stop.set()) for number in asked}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
