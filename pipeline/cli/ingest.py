"""`forefill ingest`: documents from files, folders or standard input into a corpus, streamed."""

import contextlib
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from pipeline.cli.feeding import OpenRun, choose_queue, in_batches, keep_last
from pipeline.cli.following import conclude, follow_run
from pipeline.cli.inputs import Inputs, Reading, Tally
from pipeline.cli.invocation import Call, command
from pipeline.cli.output import Output
from pipeline.cli.patience import patiently
from pipeline.cli.progress import show_progress
from pipeline.database import Database
from pipeline.documents.readers import say_left_out
from pipeline.documents.validation import DocumentLimits, check_corpus_name
from pipeline.errors import InvalidInput
from pipeline.factory import open_ingestion
from pipeline.jobs.redis_nudge import Nudger
from pipeline.jobs.run_reports import list_items
from pipeline.services.presenting import JsonObject, run_object, to_json

_PAGE = 1000


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(ingest)


def ingest(
    call: Call,
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH…", help="JSONL files, folders of .md .txt .rst .html, or - for standard input."),
    ],
    corpus: Annotated[str, typer.Option(metavar="NAME", help="Made with the defaults if it does not exist.")],
    wait: Annotated[bool, typer.Option("--wait", help="Return when everything is served.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Read all of it first; ingest nothing if any is broken.")
    ] = False,
) -> None:
    """Ingest documents. A broken line is reported and the rest ingested; running it again is always safe."""
    check_corpus_name(corpus)
    inputs = Inputs.checked(paths, limits=DocumentLimits.from_settings(call.settings))
    with contextlib.ExitStack() as stack:
        database = stack.enter_context(call.database(durable=True))
        if strict:
            stack.enter_context(inputs.spooled())
            _refuse_broken(inputs, call.output)
        nudger = Nudger(call.settings.broker_url)
        stack.callback(nudger.close)
        service = open_ingestion(call.settings, database, nudge=nudger.nudge)
        run = OpenRun(service, corpus, kind="ingest", retrying=patiently(call.output))
        began = time.perf_counter()
        tally = _feed(run, inputs, call.output)
        answer = _answer(run, tally, seconds=time.perf_counter() - began)
        _say(answer, tally, call.output)
        if wait:
            report = follow_run(database, run.id, output=call.output, streams=False)
            answer |= run_object(report)
        if call.output.as_json:
            _emit(call.output, answer, _documents(database, run))
    if wait:
        conclude(report, output=call.output)
    if tally.broken:
        raise typer.Exit(1)


def _refuse_broken(inputs: Inputs, output: Output) -> None:
    """Read everything once.

    Raises:
        InvalidInput: Something is broken; each was reported.
    """
    with show_progress(output, "checking") as progress:
        reading = Reading(inputs, output, progress)
        for _ in reading.documents():
            pass
    if reading.tally.broken:
        raise InvalidInput(f"nothing was ingested, because of --strict; broken: {reading.tally.broken:,}")


def _feed(run: OpenRun, inputs: Inputs, output: Output) -> Tally:
    """Read all inputs into the run and seal it."""
    with show_progress(output, "ingesting") as progress:
        reading = Reading(inputs, output, progress)
        try:
            queue, documents = choose_queue(reading.documents())
            with run:
                for batch in in_batches(documents):
                    run.add(keep_last(batch), queue=queue)
        except KeyboardInterrupt:
            output.note(_stopped(run))
            raise
    return reading.tally


def _stopped(run: OpenRun) -> str:
    if not run.id:
        return "stopped: nothing was ingested yet"
    return (
        f"stopped: what was accepted until now is worked on as run {run.id}; "
        "the same command again goes on, and what is there already costs nothing"
    )


def _answer(run: OpenRun, tally: Tally, *, seconds: float) -> JsonObject:
    """Return what a PUT would answer, without its documents, and what only this command knows."""
    return {
        "run_id": run.id,
        "accepted": len(run.changed),
        "unchanged": len(run.given) - len(run.changed),
        "broken": tally.broken,
        "repeated": tally.documents - len(run.given),
        "left_out": dict(sorted(tally.left_out.items())),
        "seconds": round(seconds, 3),
    }


def _say(answer: JsonObject, tally: Tally, output: Output) -> None:
    for name, times in sorted(tally.ignored_fields.items()):
        output.note(f"field {name!r} is none of id, text and metadata: ignored in {times:,} lines")
    if tally.left_out:
        output.note(f"left out of the folders: {say_left_out(tally.left_out)}")
    if answer["repeated"]:
        output.note(f"the same id came again {answer['repeated']:,} times: the last document of each id wins")
    output.line(
        f"run {answer['run_id']}: {answer['accepted']:,} accepted, {answer['unchanged']:,} unchanged, "
        f"{answer['broken']:,} broken in {answer['seconds']:.2f} s"
    )


def _documents(database: Database, run: OpenRun) -> Iterator[JsonObject]:
    """Yield what became of each document of a run, page by page."""
    after = 0
    while True:
        with database.read() as connection:
            items = list_items(connection, run.id, after=after, limit=_PAGE)
        changed = run.changed.known([item.document_id for item in items])
        for item, is_changed in zip(items, changed, strict=True):
            status = "accepted" if is_changed else "unchanged"
            yield {"id": item.document_id, "generation": item.generation, "status": status}
        if len(items) < _PAGE:
            return
        after = items[-1].document_pk


def _emit(output: Output, answer: JsonObject, documents: Iterator[JsonObject]) -> None:
    """Print the answer with its documents, holding a page of them at a time."""
    output.write(to_json(answer).removesuffix(b"}") + b',"documents":[')
    separator = b""
    for document in documents:
        output.write(separator + to_json(document))
        separator = b","
    output.write(b"]}\n")
