"""`forefill corpus`: corpora and their settings."""

from typing import Annotated, Any

import typer

from pipeline.cli.invocation import Call, command, new_group
from pipeline.documents.corpora import find_corpus, get_corpus
from pipeline.documents.validation import check_corpus_name
from pipeline.errors import Conflict
from pipeline.factory import corpus_defaults
from pipeline.services.corpus_removal import drop_corpus
from pipeline.services.corpus_settings import CorpusChange, CorpusReport, describe_corpora, put_corpus
from pipeline.services.inspection import count_states
from pipeline.services.presenting import corpus_object, time_text

Name = Annotated[str, typer.Argument(metavar="NAME", help="1 to 63 of a-z 0-9 _ -")]
Spec = Annotated[str | None, typer.Option(metavar="SPEC", help="Token spec, ENCODING/FRAME.")]
Splitter = Annotated[str | None, typer.Option(metavar="IDENTITY", help="How documents are cut; fixed once filled.")]
Schedule = Annotated[str | None, typer.Option(metavar="CRON", help="When it is tokenized again; '' for never.")]
Timezone = Annotated[str | None, typer.Option(metavar="ZONE", help="Time zone of the schedule, an IANA name.")]


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = new_group("Corpora and their settings.")
    command(group, "ls")(list_all)
    command(group, "create")(create)
    command(group, "set")(change)
    command(group, "rm")(remove)
    app.add_typer(group, name="corpus")


def list_all(call: Call) -> None:
    """List corpora."""
    with call.database() as database, database.read() as connection:
        reports = describe_corpora(connection)
        states = [count_states(connection, report.corpus.pk) for report in reports]
    rows = [
        (r.corpus.name, r.spec_id, sum(count.values()) - count["deleted"], _schedule(r), time_text(r.next_run_at),
         r.corpus.splitter)
        for r, count in zip(reports, states, strict=True)
    ]  # fmt: skip
    call.output.table(("CORPUS", "SPEC", "DOCUMENTS", "SCHEDULE", "NEXT RUN", "SPLITTER"), rows)
    call.output.emit({"corpora": [_object(report) for report in reports], "next": None})


def create(
    call: Call,
    name: Name,
    spec: Spec = None,
    splitter: Splitter = None,
    schedule: Schedule = None,
    timezone: Timezone = None,
) -> None:
    """Create a corpus; what is not said takes the default."""
    change = CorpusChange(spec=spec, splitter=splitter, schedule=schedule, timezone=timezone)
    with call.database(durable=True) as database:
        check_corpus_name(name)
        with database.read() as connection:
            if find_corpus(connection, name) is not None:
                raise Conflict(f"there is a corpus {name!r} already: change it with `forefill corpus set`")
        report, _ = put_corpus(database, name, change, defaults=corpus_defaults(call.settings, database))
    call.output.line(f"created corpus {name} with spec {report.spec_id}")
    call.output.emit(_object(report))


def change(
    call: Call,
    name: Name,
    splitter: Splitter = None,
    schedule: Schedule = None,
    timezone: Timezone = None,
) -> None:
    """Change a corpus; its splitter only while it has no documents."""
    change = CorpusChange(splitter=splitter, schedule=schedule, timezone=timezone)
    with call.database(durable=True) as database:
        with database.read() as connection:
            get_corpus(connection, name)
        report, _ = put_corpus(database, name, change, defaults=corpus_defaults(call.settings, database))
    call.output.line(f"corpus {name} is changed")
    call.output.emit(_object(report))


def remove(
    call: Call,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a corpus with everything in it. Its name is free at once."""
    with call.database(durable=True) as database:
        with database.read() as connection:
            counts = count_states(connection, get_corpus(connection, name).pk)
        documents = sum(counts.values()) - counts["deleted"]
        if not yes:
            typer.confirm(f"Remove corpus {name} with {documents:,} documents?", abort=True, err=True)
        drop_corpus(database, name)
    call.output.line(f"removed corpus {name}; a worker removes its points")
    call.output.emit({"name": name, "removed": True})


def _schedule(report: CorpusReport) -> str | None:
    corpus = report.corpus
    return None if corpus.schedule is None else f"{corpus.schedule} {corpus.timezone}"


def _object(report: CorpusReport) -> dict[str, Any]:
    return corpus_object(report.corpus, spec_id=report.spec_id, next_run_at=report.next_run_at)
