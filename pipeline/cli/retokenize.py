"""`forefill retokenize · verify · gc`: runs over a whole corpus, by hand."""

import contextlib
from typing import Annotated

import typer

from pipeline.cli.following import conclude, describe_run, follow_run
from pipeline.cli.invocation import Call, command
from pipeline.database import Database
from pipeline.documents.corpora import get_corpus, list_corpora
from pipeline.documents.validation import check_corpus_name
from pipeline.jobs.range_runs import RangeOptions
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.run_reports import RunReport, get_run
from pipeline.jobs.states import RunState
from pipeline.services.presenting import run_object
from pipeline.services.range_runs import start_range_run

CorpusOption = Annotated[str, typer.Option(metavar="NAME", help="The corpus.")]
SpecOption = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Only this one; by default all that the corpus is filled for.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    command(app)(retokenize)
    command(app)(verify)
    command(app)(gc)


def retokenize(
    call: Call,
    corpus: CorpusOption,
    spec: SpecOption = None,
    only_changed: Annotated[
        bool, typer.Option("--only-changed", help="Believe the ledger; read only documents it does not know as filled.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Compare and count; write nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
) -> None:
    """Tokenize everything a corpus serves anew, compare with what is stored, and store what is right."""
    options = RangeOptions(only_changed=only_changed, dry_run=dry_run)
    with call.database(durable=True) as database:
        report = _start(call, database, corpus, kind="retokenize", spec=spec, options=options)
        if wait or dry_run:
            report = follow_run(database, report.id, output=call.output, streams=False)
    call.output.emit(run_object(report))
    if wait or dry_run:
        if report.differences:
            call.output.note(
                f"{report.differences:,} documents differed: `forefill runs errors {report.id}` lists them"
            )
        conclude(report, output=call.output)
    else:
        call.output.line(describe_run(report))
        call.output.note(f"`forefill runs watch {report.id}` follows it")


def verify(
    call: Call,
    corpus: CorpusOption,
    spec: SpecOption = None,
    sample: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="About so many documents; by default all.")
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Write what is missing or differs.")] = False,
) -> None:
    """Compare ledger, cache and points of a corpus. Exit code 1 if differences are left."""
    options = RangeOptions(sample=sample, repair=repair)
    with call.database(durable=True) as database:
        started = _start(call, database, corpus, kind="verify", spec=spec, options=options)
        report = follow_run(database, started.id, output=call.output, streams=False)
    call.output.emit(run_object(report))
    if report.differences:
        left = "were repaired" if repair else "are left"
        call.output.note(f"{report.differences:,} documents differed and {left}: `forefill runs errors {report.id}`")
    conclude(report, output=call.output)
    if report.differences and not repair:
        raise typer.Exit(1)


def gc(
    call: Call,
    corpus: Annotated[
        str | None, typer.Option(metavar="NAME", help="By default all corpora, one after the other.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count; drop nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
) -> None:
    """Let entries go that nothing serves any more (within the hour), and tombstones older than a day."""
    with call.database(durable=True) as database:
        for name in _corpora(database, corpus):
            report = _start(call, database, name, kind="gc", spec=None, options=RangeOptions(dry_run=dry_run))
            if wait or dry_run:
                report = follow_run(database, report.id, output=call.output, streams=False)
                counts = f"{report.totals['done']:,} entries are garbage, {report.totals['unchanged']:,} are served"
                call.output.line(f"{name}: {counts}")
            else:
                call.output.line(f"{name}: run {report.id} is queued")
            call.output.emit(run_object(report))
            if (wait or dry_run) and report.state != RunState.SUCCEEDED:
                conclude(report, output=call.output)


def _corpora(database: Database, chosen: str | None) -> list[str]:
    with database.read() as connection:
        return [get_corpus(connection, chosen).name] if chosen else [each.name for each in list_corpora(connection)]


def _start(
    call: Call, database: Database, corpus: str, *, kind: str, spec: str | None, options: RangeOptions
) -> RunReport:
    check_corpus_name(corpus)
    with contextlib.closing(Nudger(call.settings.broker_url)) as nudger:
        run_id = start_range_run(database, corpus, kind=kind, spec=spec, options=options)
        nudger.nudge()
    assert run_id is not None  # noqa: S101  # only a schedule's run may be there already
    with database.read() as connection:
        return get_run(connection, run_id)
