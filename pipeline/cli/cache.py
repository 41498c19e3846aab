"""`forefill cache`: dropping entries on purpose."""

import contextlib
import sys
from typing import Annotated

import typer

from pipeline.cli.invocation import Call, command, new_group
from pipeline.documents.corpora import get_corpus
from pipeline.errors import InvalidInput
from pipeline.factory import open_token_writer
from pipeline.jobs.redis_nudge import Nudger
from pipeline.services.cache_clearing import clear_entries, clear_with_new_key
from pipeline.services.presenting import cleared_object


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = new_group("The cache of token entries.")
    command(group, "clear")(clear)
    app.add_typer(group, name="cache")


def clear(
    call: Call,
    corpus: Annotated[str | None, typer.Option(metavar="NAME", help="Only entries this corpus serves.")] = None,
    refill: Annotated[bool, typer.Option("--refill/--no-refill", help="Fill it again.")] = True,
    new_key: Annotated[
        bool,
        typer.Option("--new-key", help="FOREFILL_ENTRY_HMAC_KEY was changed: entries are signed with this one now."),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop token entries, and nothing else that the cache may hold. Queries tokenize until they are filled again."""
    if new_key and corpus is not None:
        raise InvalidInput("--new-key is for the whole cache: leave --corpus out", item="--new-key")
    with (
        call.database(durable=True) as database,
        contextlib.closing(open_token_writer(call.settings)) as cache,
    ):
        if corpus is not None:
            with database.read() as connection:
                get_corpus(connection, corpus)
        if not yes and sys.stdin.isatty():
            whose = "every corpus" if corpus is None else f"corpus {corpus}"
            typer.confirm(f"Drop the entries of {whose}?", abort=True, err=True)
        if new_key:
            cleared = clear_with_new_key(database, cache, refill=refill)
        else:
            cleared = clear_entries(database, cache, corpus=corpus, refill=refill)
    with contextlib.closing(Nudger(call.settings.broker_url)) as nudger:
        nudger.nudge()
    call.output.line(f"dropped {cleared.entries:,} entries")
    for run_id in cleared.runs:
        call.output.line(f"run {run_id} fills them again")
    call.output.emit(cleared_object(cleared))
