"""`forefill spec build · activate · rollback · drop`: changing the spec of a corpus that is being read."""

import contextlib
from collections.abc import Sequence
from typing import Annotated

import typer

from pipeline.cli.following import conclude, describe_run, follow_run
from pipeline.cli.invocation import Call, command
from pipeline.database import Database
from pipeline.documents.validation import check_corpus_name
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.run_reports import get_run
from pipeline.services import spec_lifecycle
from pipeline.services.presenting import activation_object, run_object, spec_object
from pipeline.services.spec_lifecycle import Activation
from pipeline.services.specs import list_specs

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="`ENCODING/FRAME`, as `forefill spec ls` shows it.")]
SomeCorpus = Annotated[str | None, typer.Option(metavar="NAME", help="Only this corpus; by default wherever it can.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group `spec`."""
    command(group)(build)
    command(group)(activate)
    command(group)(rollback)
    command(group)(drop)


def build(
    call: Call,
    spec: SpecArgument,
    corpus: Annotated[str, typer.Option(metavar="NAME", help="The corpus.")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when the backfill has ended.")] = False,
) -> None:
    """Fill a corpus for a spec beside those it has. Readers notice nothing until it is activated."""
    check_corpus_name(corpus)
    with call.database(durable=True) as database:
        with contextlib.closing(Nudger(call.settings.broker_url)) as nudger:
            run_id = spec_lifecycle.build(database, spec, corpus)
            nudger.nudge()
        if wait:
            report = follow_run(database, run_id, output=call.output, streams=False)
        else:
            with database.read() as connection:
                report = get_run(connection, run_id)
    call.output.emit(run_object(report))
    if wait:
        conclude(report, output=call.output)
    else:
        call.output.line(describe_run(report))
    call.output.note(f"when it has ended: `forefill spec activate {spec} --corpus {corpus}`")


def activate(
    call: Call,
    spec: SpecArgument,
    corpus: SomeCorpus = None,
    force: Annotated[
        bool, typer.Option("--force", help="Accept what is missing, for instance of documents that are dead.")
    ] = False,
) -> None:
    """Have readers use a spec, if nothing that is served is missing under it. The one before stays filled."""
    with call.database(durable=True) as database:
        changed = spec_lifecycle.activate(database, spec, corpora=_only(corpus), force=force)
        _tell(call, database, spec, changed)


def rollback(call: Call, spec: SpecArgument, corpus: SomeCorpus = None) -> None:
    """Have readers use again what they used before. SPEC is the active one, or the one to go back to."""
    with call.database(durable=True) as database:
        changed = spec_lifecycle.roll_back(database, spec, corpora=_only(corpus))
        _tell(call, database, spec, changed)


def drop(call: Call, spec: SpecArgument, corpus: SomeCorpus = None) -> None:
    """Fill a spec no more; its entries go with the next garbage collection. Building it again begins anew."""
    with call.database(durable=True) as database:
        dropped = spec_lifecycle.drop(database, spec, corpora=_only(corpus))
        with database.read() as connection:
            (report,) = list_specs(connection, only=spec)
    call.output.line(f"spec {spec} is filled no more" + (f" in {', '.join(dropped)}" if dropped else ""))
    call.output.emit({**spec_object(report), "corpora": dropped})


def _only(corpus: str | None) -> list[str] | None:
    if corpus is None:
        return None
    check_corpus_name(corpus)
    return [corpus]


def _tell(call: Call, database: Database, spec: str, changed: Sequence[Activation]) -> None:
    with database.read() as connection:
        (report,) = list_specs(connection, only=spec)
    for each in changed:
        missing = f", {each.missing.documents:,} documents are missing" if each.missing.documents else ""
        call.output.line(f"{each.corpus}: readers use {each.spec_id} within some seconds{missing}")
    call.output.emit({**spec_object(report), "corpora": [activation_object(each) for each in changed]})
