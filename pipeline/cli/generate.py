"""`forefill generate`: one question, answered by the configured engine, by the same code as the API."""

import asyncio
from contextlib import aclosing
from typing import Annotated

import typer

from pipeline.cli.invocation import Call, command
from pipeline.cli.output import Output
from pipeline.cli.retrieve import parse_filter
from pipeline.context import Order
from pipeline.database import Database
from pipeline.factory import open_generation, open_read_context
from pipeline.generation import Piece
from pipeline.services.generating import Generated, GenerateRequest, GenerationService
from pipeline.services.presenting_generation import generated_object, piece_object
from pipeline.services.retrieving import RetrieveRequest
from pipeline.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(generate)


def generate(
    call: Call,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    *,
    corpus: Annotated[str, typer.Option(metavar="NAME")],
    top_k: Annotated[int, typer.Option("--top-k", help="Passages at most, 1 to 100.")] = 5,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Tokens of the answer at most.")] = 1024,
    temperature: Annotated[
        float | None, typer.Option(help="0 is deterministic; the engine's default when left out.")
    ] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="Ends the answer; may be repeated.")] = None,
    max_context_tokens: Annotated[
        int | None, typer.Option("--max-context-tokens", help="Token budget; by default FOREFILL_MAX_CONTEXT_TOKENS.")
    ] = None,
    order: Annotated[Order, typer.Option(help="Order of the passages in the prompt.")] = "relevance",
    where: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="KEY=VALUE", help="Metadata a passage must have; a JSON value or text."),
    ] = None,
    score_threshold: Annotated[float | None, typer.Option("--score-threshold", help="Lowest fused score.")] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="With --json: a line for each piece, then one with the answer.")
    ] = False,
    return_token_ids: Annotated[
        bool, typer.Option("--return-token-ids", help="With --json: the ids of prompt and answer, too.")
    ] = False,
    spec: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Token spec; by default the corpus' active one.")
    ] = None,
) -> None:
    """Answer a question with the configured engine."""
    budget = call.settings.max_context_tokens if max_context_tokens is None else max_context_tokens
    request = GenerateRequest(
        retrieve=RetrieveRequest(
            corpus=corpus,
            query=question,
            top_k=top_k,
            max_context_tokens=budget,
            order=order,
            where=parse_filter(where or []),
            score_threshold=score_threshold,
            spec=spec,
        ),
        max_tokens=max_tokens,
        temperature=temperature,
        stop=tuple(stop or ()),
    )
    speaker = _Speaker(call.output, stream=stream, return_token_ids=return_token_ids)
    with call.database() as database:
        asyncio.run(_ask(call.settings, database, request, speaker))


class _Speaker:
    """Says an answer while it comes to a terminal, and otherwise at its end."""

    def __init__(self, output: Output, *, stream: bool, return_token_ids: bool) -> None:
        self._output = output
        self._return_token_ids = return_token_ids
        self.streams = stream if output.as_json else output.results.is_terminal

    def say_piece(self, piece: Piece) -> None:
        """Go on with the answer."""
        self._output.emit(piece_object(piece))
        self._output.part(piece.text)

    def say_end(self, answer: Generated) -> None:
        """Say everything else about an answer."""
        output = self._output
        output.emit(generated_object(answer, return_token_ids=self._return_token_ids))
        output.line("" if self.streams else answer.completion.text)
        if not output.as_json:
            self._say_facts(answer)

    def _say_facts(self, answer: Generated) -> None:
        output = self._output
        usage = answer.completion.usage
        cached = "" if usage.cached_tokens is None else f", {usage.cached_tokens:,} of them cached by the engine"
        model = answer.engine.model or answer.engine.kind
        output.note(
            f"{model}: {usage.completion_tokens:,} tokens ({answer.completion.finish_reason}) to a prompt of "
            f"{answer.context_tokens:,} context and {answer.query_tokens:,} question tokens{cached}, in "
            f"{answer.latency_ms:,.0f} ms"
        )
        for passage in answer.retrieved.context.passages:
            output.note(f"  {passage.document_id} passage {passage.ordinal} ({passage.source})")


async def _ask(settings: Settings, database: Database, request: GenerateRequest, speaker: _Speaker) -> None:
    context = open_read_context(settings, database)
    generation: GenerationService | None = None
    try:
        generation = open_generation(settings, context.retriever)
        await context.configuration.start()
        if speaker.streams:
            await _stream(generation, request, speaker)
        else:
            speaker.say_end(await generation.generate(request))
    finally:
        if generation is not None:
            await generation.close()
        await context.close()


async def _stream(generation: GenerationService, request: GenerateRequest, speaker: _Speaker) -> None:
    async with aclosing(generation.stream(request)) as parts:
        async for part in parts:
            if isinstance(part, Generated):
                speaker.say_end(part)
            else:
                speaker.say_piece(part)
