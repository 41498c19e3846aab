"""`forefill delete`: documents out of a corpus; ids from the command line or standard input."""

import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from pipeline.cli.feeding import MAX_BATCH_DOCUMENTS, OpenRun
from pipeline.cli.following import conclude, follow_run
from pipeline.cli.invocation import Call, command
from pipeline.cli.patience import patiently
from pipeline.cli.progress import show_progress
from pipeline.documents.readers import STANDARD_INPUT
from pipeline.documents.validation import check_corpus_name, check_document_id
from pipeline.errors import InvalidInput
from pipeline.factory import open_ingestion
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.run_reports import get_run
from pipeline.jobs.store import INTERACTIVE_LIMIT
from pipeline.services.ingestion import DeleteAnswer
from pipeline.services.presenting import delete_object, run_object


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(delete)


def delete(
    call: Call,
    ids: Annotated[list[str], typer.Argument(metavar="ID…", help="Document ids; - reads more, one a line.")],
    corpus: Annotated[str, typer.Option(metavar="NAME")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when none of them can be found any more.")] = False,
) -> None:
    """Delete documents. Ids that do not exist are counted and are no error."""
    check_corpus_name(corpus)
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(call.database(durable=True))
        nudger = Nudger(call.settings.broker_url)
        stack.callback(nudger.close)
        service = open_ingestion(call.settings, database, nudge=nudger.nudge)
        run = OpenRun(service, corpus, kind="delete", retrying=patiently(call.output))
        with show_progress(call.output, "deleting") as progress:
            queue, batches = choose_batches(all_ids(ids, sys.stdin.buffer))
            with run:
                for batch in batches:
                    run.add_deletions(batch, queue=queue)
                    progress(None, f"{len(run.given):,} ids")
        with database.read() as connection:
            report = get_run(connection, run.id)
        accepted = report.totals["documents"]
        answer = DeleteAnswer(run.id, accepted=accepted, unknown=len(run.given) - accepted)
        call.output.line(f"run {run.id}: {accepted:,} accepted, {answer.unknown:,} unknown")
        if wait:
            report = follow_run(database, run.id, output=call.output, streams=False)
        call.output.emit(delete_object(answer) | (run_object(report) if wait else {}))
    if wait:
        conclude(report, output=call.output)


def all_ids(arguments: Iterable[str], standard_input: Iterable[bytes]) -> Iterator[str]:
    """Yield the ids given, those of standard input in the place of `-`; blank lines are skipped.

    Raises:
        InvalidInput: One of them can be no document's id.
    """
    for argument in arguments:
        given = _lines(standard_input) if argument == STANDARD_INPUT else [argument]
        for document_id in given:
            check_document_id(document_id)
            yield document_id


def choose_batches(ids: Iterable[str]) -> tuple[str, Iterator[list[str]]]:
    """Return the queue for so many ids, and the ids in batches for one transaction each, not repeated in a batch."""
    rest = iter(ids)
    first = list(itertools.islice(rest, INTERACTIVE_LIMIT + 1))
    queue = "interactive" if len(first) <= INTERACTIVE_LIMIT else "bulk"
    return queue, _batches(itertools.chain(first, rest))


def _batches(ids: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(itertools.islice(ids, MAX_BATCH_DOCUMENTS)):
        yield list(dict.fromkeys(batch))


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(stream, start=1):
        try:
            document_id = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"-:{number}: is not UTF-8 at byte {error.start}", item=STANDARD_INPUT) from error
        if document_id.strip():
            yield document_id
