"""`forefill runs`: the work there was and is."""

import contextlib
from collections.abc import Callable
from typing import Annotated

import typer

from pipeline.cli.following import conclude, describe_run, follow_run
from pipeline.cli.invocation import Call, command, new_group
from pipeline.database import Database
from pipeline.documents.corpora import get_corpus
from pipeline.errors import NotFound
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.run_reports import RunReport, get_run, list_errors, list_runs
from pipeline.services import range_runs
from pipeline.services.presenting import page_object, run_error_object, run_object, time_text

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="At most this many.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = new_group("Runs: what was asked for, and what became of it.")
    command(group, "ls")(list_all)
    command(group)(show)
    command(group)(watch)
    command(group)(errors)
    for name, act in (("pause", _pause), ("resume", _resume), ("cancel", _cancel), ("retry", _retry)):
        command(group, name)(act)
    app.add_typer(group, name="runs")


def list_all(
    call: Call,
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="Only runs of this corpus.")] = None,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Only runs that have not ended.")] = False,
    limit: Limit = 20,
    after: Annotated[str | None, typer.Option(metavar="RUN", help="Only runs older than this one.")] = None,
) -> None:
    """List runs, newest first."""
    with call.database() as database, database.read() as connection:
        if corpus is not None:
            get_corpus(connection, corpus)
        corpora = None if corpus is None else [corpus]
        reports = list_runs(connection, corpora=corpora, before=after, limit=limit, unfinished=unfinished)
    rows = [
        (r.id, r.kind, r.corpus, r.state, r.totals["documents"], r.totals["pending"], r.totals["dead"], r.tokens,
         time_text(r.created_at))
        for r in reports
    ]  # fmt: skip
    call.output.table(("RUN", "KIND", "CORPUS", "STATE", "DOCUMENTS", "PENDING", "DEAD", "TOKENS", "CREATED"), rows)
    call.output.emit(page_object("runs", [run_object(report) for report in reports], limit=limit, key="id"))


def show(call: Call, run: RunId) -> None:
    """Show one run."""
    with call.database() as database, database.read() as connection:
        report = get_run(connection, run)
    call.output.line(describe_run(report))
    call.output.emit(run_object(report))


def watch(
    call: Call,
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="By default the newest unfinished one.")] = None,
) -> None:
    """Follow a run to its end. Exit code 0 only if it succeeded."""
    with call.database() as database:
        run_id = run if run is not None else _newest_unfinished(database)
        report = follow_run(database, run_id, output=call.output, streams=call.output.as_json)
    conclude(report, output=call.output)


def errors(
    call: Call,
    run: RunId,
    limit: Limit = 100,
    after: Annotated[str | None, typer.Option(metavar="ID", help="Only documents after this one.")] = None,
) -> None:
    """List the documents that died in a run or differed, with the cause."""
    with call.database() as database, database.read() as connection:
        get_run(connection, run)
        found = list_errors(connection, run, after=after, limit=limit)
    page = page_object("errors", [run_error_object(error) for error in found], limit=limit, key="document_id")
    call.output.emit(page)
    if not found:
        call.output.line("no errors")
        return
    rows = [(e.document_id, e.generation, e.stage, e.attempts, e.error) for e in found]
    call.output.table(("DOCUMENT", "GENERATION", "STAGE", "ATTEMPTS", "ERROR"), rows)
    if page["next"] is not None and not call.output.as_json:
        call.output.note(f"there may be more: --after {page['next']!r}")


def _pause(call: Call, run: RunId) -> None:
    """Stop a run over a corpus for now; its workers notice within a slice."""
    _act(call, run, range_runs.pause)


def _resume(call: Call, run: RunId) -> None:
    """Let a paused run go on where it stopped."""
    _act(call, run, range_runs.resume)


def _cancel(call: Call, run: RunId) -> None:
    """End a run over a corpus for good; what it has written stays. Accepted writes cannot be cancelled."""
    _act(call, run, range_runs.cancel)


def _retry(call: Call, run: RunId) -> None:
    """Try again what failed in a run that has ended."""
    _act(call, run, range_runs.retry)


def _act(call: Call, run: str, act: Callable[[Database, str], RunReport]) -> None:
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(call.database(durable=True))
        nudger = Nudger(call.settings.broker_url)
        stack.callback(nudger.close)
        report = act(database, run)
        nudger.nudge()
    call.output.line(describe_run(report))
    call.output.emit(run_object(report))


def _newest_unfinished(database: Database) -> str:
    with database.read() as connection:
        reports = list_runs(connection, limit=1, unfinished=True)
    if not reports:
        raise NotFound("no run is unfinished: name one")
    return reports[0].id
