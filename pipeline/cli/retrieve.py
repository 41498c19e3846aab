"""`forefill retrieve`: one question, answered with token ids, by the same code as the API."""

import asyncio
from typing import Annotated, Any

import orjson
import typer
from pydantic import JsonValue

from pipeline.cli.invocation import Call, command
from pipeline.cli.output import Output
from pipeline.context import Order
from pipeline.database import Database
from pipeline.errors import InvalidInput
from pipeline.factory import open_read_context
from pipeline.json_input import read_json
from pipeline.services.presenting import JsonObject, retrieved_object, to_json
from pipeline.services.retrieving import Retrieved, RetrieveRequest
from pipeline.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(retrieve)


def retrieve(
    call: Call,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    corpus: Annotated[str, typer.Option(metavar="NAME")],
    top_k: Annotated[int, typer.Option("--top-k", help="Passages at most, 1 to 100.")] = 5,
    max_context_tokens: Annotated[
        int | None, typer.Option("--max-context-tokens", help="Token budget; by default FOREFILL_MAX_CONTEXT_TOKENS.")
    ] = None,
    order: Annotated[Order, typer.Option(help="Order of the passages in the prompt.")] = "relevance",
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Metadata a passage must have; a JSON value or text."),
    ] = None,
    score_threshold: Annotated[float | None, typer.Option("--score-threshold", help="Lowest fused score.")] = None,
    include_text: Annotated[bool, typer.Option("--include-text", help="Show the prompt's text too.")] = False,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="Show the ids of the whole prompt, question and all; no engine is needed.")
    ] = False,
    spec: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Token spec; by default the corpus' active one.")
    ] = None,
) -> None:
    """Answer a question with the token ids of its context."""
    request = RetrieveRequest(
        corpus=corpus,
        query=question,
        top_k=top_k,
        max_context_tokens=call.settings.max_context_tokens if max_context_tokens is None else max_context_tokens,
        order=order,
        where=parse_filter(where or []),
        score_threshold=score_threshold,
        include_prompt=prompt,
        spec=spec,
    )
    with call.database() as database:
        answer = asyncio.run(_ask(call.settings, database, request))
    presented = retrieved_object(answer, include_text=include_text)
    call.output.emit(presented)
    _say(answer, presented, call.output)


def parse_filter(conditions: list[str]) -> dict[str, JsonValue] | None:
    """Return `KEY=VALUE` conditions as the HTTP body has them: values that are JSON as such, others as text.

    Raises:
        BadParameter: One has no `=`.
    """
    parsed: dict[str, JsonValue] = {}
    for condition in conditions:
        key, equals, value = condition.partition("=")
        if not equals:
            raise typer.BadParameter(f"filter {condition!r} is not KEY=VALUE")
        parsed[key] = _value(value)
    return parsed or None


def _value(text: str) -> Any:
    try:
        return read_json(text.encode(errors="surrogateescape"))
    except InvalidInput:
        return text


async def _ask(settings: Settings, database: Database, request: RetrieveRequest) -> Retrieved:
    context = open_read_context(settings, database)
    try:
        await context.configuration.start()
        return await context.retriever.retrieve(request)
    finally:
        await context.close()


def _say(answer: Retrieved, presented: JsonObject, output: Output) -> None:
    rows = [
        (
            p.score,
            p.document_id,
            p.ordinal,
            p.generation,
            f"{p.token_count:,} (cut)" if p.cut else p.token_count,
            p.source,
        )
        for p in answer.context.passages
    ]
    output.table(("SCORE", "DOCUMENT", "PASSAGE", "GENERATION", "TOKENS", "SOURCE"), rows)
    facts = presented["metadata"]
    spent = ", ".join(f"{name} {spent_ms:.1f}" for name, spent_ms in facts["timings_ms"].items())
    cut = "; the budget left out some of what was found" if facts["truncated"] else ""
    output.line(
        f"{facts['token_count']:,} token ids of {facts['doc_count']} passages under {facts['spec']} "
        f"in {facts['latency_ms']:.1f} ms ({spent}){cut}"
    )
    if answer.prompt_token_ids is not None:
        counts = f"{presented['context_tokens']:,} of context and {presented['query_tokens']:,} of the question"
        output.line(f"{len(answer.prompt_token_ids):,} ids of the whole prompt, {counts}:")
        output.line(to_json(answer.prompt_token_ids).decode())
    if "prompt_text" in presented:
        output.line()
        output.line(presented["prompt_text"])
    elif "prompt_segments" in presented:
        output.line()
        output.line(orjson.dumps(presented["prompt_segments"]).decode())
