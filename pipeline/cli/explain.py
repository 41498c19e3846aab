"""`forefill explain`: why a document is, or is not, served and cached."""

import contextlib
from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.invocation import Call, command
from pipeline.cli.output import Output
from pipeline.documents.corpora import get_corpus
from pipeline.errors import Unavailable
from pipeline.factory import open_token_writer
from pipeline.services.explaining import Explanation, explain_document
from pipeline.services.presenting import JsonObject, document_object

_CACHE_TIMEOUT_S = 1.0


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(explain)


def explain(
    call: Call,
    document_id: Annotated[str, typer.Argument(metavar="ID", help="The document's id.")],
    corpus: Annotated[str, typer.Option(metavar="NAME")],
) -> None:
    """Say where a document stands, whether its entries are in the cache now, and what happens next."""
    with (
        call.database() as database,
        contextlib.closing(open_token_writer(call.settings, timeout_s=_CACHE_TIMEOUT_S)) as cache,
        database.read() as connection,
    ):
        found = get_corpus(connection, corpus)
        try:
            explanation = explain_document(connection, found, document_id, is_present=cache.exists)
        except Unavailable as error:
            if error.service != "cache":
                raise
            call.output.note(f"{error}; what follows is what the ledger remembers")
            explanation = explain_document(connection, found, document_id, is_present=None)
    call.output.emit(explanation_object(explanation))
    _show(explanation, call.output)


def explanation_object(explanation: Explanation) -> JsonObject:
    """Return the document as HTTP answers it, and what is known beside it."""
    return document_object(explanation.document) | {
        "asked_cache": explanation.asked_cache,
        "published_generation": explanation.published_generation,
        "queue": explanation.queue,
        "bucket": explanation.bucket,
        "attempts": explanation.attempts,
        "due_in_s": explanation.due_in_s,
        "workers": explanation.workers,
        "jobs": [asdict(job) for job in explanation.jobs],
        "runs": list(explanation.runs),
        "next": explanation.next,
    }


def _show(explanation: Explanation, output: Output) -> None:
    document = explanation.document
    output.line(f"document    {document.id}")
    output.line(f"state       {document.state}")
    output.line(
        f"generation  {document.generation} accepted, {explanation.published_generation} published, "
        f"{document.served_generation or 'none'} served"
    )
    source = "the cache" if explanation.asked_cache else "the ledger"
    cached = sum(passage.cached for passage in document.passages)
    output.line(f"passages    {len(document.passages)} served, {cached} with an entry, says {source}")
    if document.last_error:
        output.line(f"last error  {document.last_error} (attempt {explanation.attempts})")
    output.line(f"queue       {explanation.queue}, bucket {explanation.bucket}, {explanation.workers} workers")
    for job in explanation.jobs:
        holder = f" by {job.worker}" if job.worker else ""
        error = f"; {job.last_error}" if job.last_error else ""
        output.line(f"job         {job.job_id} {job.state}{holder}, delivered {job.deliveries} times{error}")
    for run in explanation.runs:
        output.line(f"run         {run} waits for it")
    output.line(f"next        {explanation.next}")
    if document.passages:
        output.line()
        rows = [(p.ordinal, p.token_count, p.cached) for p in document.passages]
        output.table(("PASSAGE", "TOKENS", "CACHED"), rows)
