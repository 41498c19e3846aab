"""`forefill spec enable`: caching on again after an audit switched it off."""

import contextlib
from typing import Annotated

import typer

from pipeline.cli.following import conclude, follow_run
from pipeline.cli.invocation import Call, command
from pipeline.cli.progress import show_progress
from pipeline.database import Database
from pipeline.documents.caching import CachingOff
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.states import RunState
from pipeline.services.presenting import spec_object
from pipeline.services.spec_enabling import enable as enable_caching
from pipeline.services.spec_enabling import find_caching_off, pending_verification, validate_again
from pipeline.services.specs import list_specs


def register(group: typer.Typer) -> None:
    """Add the command to the group of specs."""
    command(group)(enable)


def enable(
    call: Call,
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="The spec.")],
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="By default every corpus where it is off.")] = None,
) -> None:
    """Have a corpus verified and the spec validated again; then switch on the caching that an audit switched off."""
    with call.database(durable=True) as database:
        found = find_caching_off(database, spec, corpora=None if corpus is None else [corpus])
        for off in found:
            _verify(call, database, off)
        if found:
            _validate(call, database, spec, corpora=[off.corpus for off in found])
        for off in found:
            enable_caching(database, off)
            call.output.line(f"caching of corpus {off.corpus} under {spec} is on again")
        with database.read() as connection:
            (report,) = list_specs(connection, only=spec)
    if not found:
        call.output.line(f"caching under {spec} was not off: nothing changed")
    call.output.emit(spec_object(report))


def _verify(call: Call, database: Database, off: CachingOff) -> None:
    """Wait for the verification that is needed; one that does not go through ends the command."""
    while (run_id := pending_verification(database, off)) is not None:
        with contextlib.closing(Nudger(call.settings.broker_url)) as nudger:
            nudger.nudge()
        report = follow_run(database, run_id, output=call.output, streams=False)
        if report.differences:
            call.output.note(
                f"{report.differences:,} documents differed and were repaired: `forefill runs errors {run_id}`"
            )
        if report.state not in (RunState.SUCCEEDED, RunState.PARTIAL):
            call.output.note(f"caching of corpus {off.corpus} under {off.spec_id} stays off")
            conclude(report, output=call.output)


def _validate(call: Call, database: Database, spec_id: str, *, corpora: list[str]) -> None:
    contexts = call.settings.spec_validation_contexts
    with show_progress(call.output, "validating") as report:

        def progress(done: int) -> None:
            report(done / contexts, f"{done:,} of {contexts:,} prompts have exact ids")

        validate_again(database, spec_id, contexts=contexts, corpora=corpora, progress=progress)
