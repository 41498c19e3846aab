"""`forefill api · worker · dispatcher · beat · flower · qdrant`: this process becomes the service.

The command line is replaced by exec, so that the service has the process id that its supervisor started, gets its
signals directly and imports nothing from here. `-P` keeps the working directory out of the module path: a folder named
`api` there must not be taken for ours.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pipeline.cli.invocation import Call, command, require_database_file
from pipeline.cli.stack.flower_conf import FlowerOptions, flower_arguments, write_flower_conf
from pipeline.cli.stack.worker_metrics import worker_environment
from pipeline.database import Database, create_database_engine
from pipeline.ending import end_at_once
from pipeline.errors import Unavailable, operator_sentence
from pipeline.jobs.store import QUEUES
from pipeline.services.schema import require_newest
from pipeline.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(api)
    command(app)(worker)
    command(app)(dispatcher)
    command(app)(beat)
    command(app)(flower)
    command(app)(qdrant)


def api(
    call: Call,
    host: Annotated[str | None, typer.Option(help="Address to listen on; by default FOREFILL_API_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65_535, help="By default FOREFILL_API_PORT.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=64, help="That serve on the port; by default FOREFILL_API_PROCESSES.")
    ] = None,
) -> None:
    """Serve the HTTP API."""
    given = {"FOREFILL_API_HOST": host, "FOREFILL_API_PORT": port, "FOREFILL_API_PROCESSES": processes}
    _check_schema(call.settings)
    _become(["api"], {name: str(value) for name, value in given.items() if value is not None})


def worker(
    call: Call,
    queues: Annotated[
        str, typer.Option(metavar="QUEUE,…", help="What it consumes; all queues need some worker.")
    ] = ",".join(QUEUES),
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=256, help="Prefork children; by default FOREFILL_WORKER_CONCURRENCY.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Unique on this host; by default made from the process id.")] = None,
) -> None:
    """Run a Celery worker."""
    chosen = parse_queues(queues)
    _check_schema(call.settings)
    _become(
        worker_arguments(
            chosen, concurrency=concurrency or call.settings.worker_concurrency, name=name or f"worker-{os.getpid()}"
        ),
        # SIGTERM then gives jobs back at once instead of waiting for them.
        {"REMAP_SIGTERM": "SIGQUIT", **worker_environment(call.settings)},
    )


def dispatcher(call: Call) -> None:
    """Run a dispatcher: it tells workers of pending jobs. Several may run; one leads."""
    _check_schema(call.settings)
    _become(["workers.dispatcher"], {})


def beat(
    call: Call,
    schedule: Annotated[Path | None, typer.Option(metavar="FILE", hidden=True)] = None,
) -> None:
    """Run Celery beat: it asks for a look at the schedules, which the dispatcher takes by itself too."""
    if schedule is not None:
        call.output.note("beat remembers nothing any more: --schedule does nothing and can be left out")
    _check_schema(call.settings)
    _become(BEAT_ARGUMENTS, {})


def flower(
    call: Call,
    auth_file: Annotated[Path, typer.Option("--auth-file", metavar="FILE", help="One USER:PASSWORD a line.")],
    folder: Annotated[Path, typer.Option(metavar="DIR", help="Its configuration and database.")] = Path(
        "forefill-flower"
    ),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 5555,
) -> None:
    """Run Flower, with authentication, read-only unless FOREFILL_FLOWER_WRITABLE is true."""
    options = FlowerOptions(
        folder=folder.absolute(), auth_file=auth_file, host=host, port=port, writable=call.settings.flower_writable
    )
    _become(flower_arguments(write_flower_conf(options)), {})


def qdrant(
    call: Call,
    host: Annotated[str, typer.Option(help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes a free one.")] = 6333,
    socket: Annotated[str | None, typer.Option(metavar="PATH", help="Unix socket to listen on instead.")] = None,
) -> None:
    """Run the embedded Qdrant engine on FOREFILL_QDRANT_DATA_DIR, with FOREFILL_QDRANT_API_KEY."""
    address = ["--host", host, "--port", str(port)] if socket is None else ["--socket", socket]
    _become(["pipeline.retrieval.owner", "--data-dir", str(call.settings.qdrant_data_dir), *address], {})


def parse_queues(text: str) -> list[str]:
    """Return the queues of a comma-separated list.

    Raises:
        BadParameter: One of them is unknown, or there is none.
    """
    queues = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in queues if name not in QUEUES]
    if unknown or not queues:
        raise typer.BadParameter(f"unknown queue {', '.join(unknown) or text!r}: there are {', '.join(QUEUES)}")
    return queues


def worker_arguments(queues: list[str], *, concurrency: int, name: str) -> list[str]:
    """Return what Python's `-m` is given to run a worker."""
    return [
        *("workers", "worker", "-P", "prefork", "--without-gossip", "--without-mingle"),
        *("-Q", ",".join(queues), "-c", str(concurrency), "-n", f"{name}@%h"),
    ]


BEAT_ARGUMENTS = ["workers", "beat", "--pidfile="]
"""What Python's `-m` is given to run beat."""


def _check_schema(settings: Settings) -> None:
    """Refuse to start on a wrong schema; a database that is away for now is the service's to wait for."""
    require_database_file(settings)
    database = Database(create_database_engine(settings.database_url, pool_size=1))
    try:
        require_newest(database)
    except Unavailable as error:
        print(f"forefill: {operator_sentence(error)}; starting all the same", file=sys.stderr)  # noqa: T201  # the user's line
    finally:
        database.close()


def _become(module: list[str], environment: dict[str, str]) -> NoReturn:
    os.environ.update(environment)
    sys.stdout.flush()
    end_at_once()  # a handler of ours that the signal has reached but that has not run yet would be lost
    os.execv(sys.executable, [sys.executable, "-P", "-m", *module])  # noqa: S606  # no shell, our own interpreter
