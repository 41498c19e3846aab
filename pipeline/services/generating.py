"""Questions in, answers out: retrieve, put the question behind the context, hand the ids to an engine.

The prompt's first ids are exactly what `retrieve` answers under the same budget; the question and its prefix are one
run of text behind them. Where the engine's window is known, the budget leaves room for question and answer.
"""

import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from pipeline.context import prompt_ids, rendered_segments
from pipeline.errors import Conflict, ForefillError, InvalidInput, Unavailable
from pipeline.framing import TokenIds
from pipeline.generation import Completion, Engine, GenerationClient, GenerationOptions, Handshake, Piece
from pipeline.services.retrieving import Retrieved, Retriever, RetrieveRequest
from pipeline.telemetry import metrics
from pipeline.telemetry.tracing import TRACER, inside
from pipeline.tokenizers import TokenSpec, question_ids

SPAN = "token_cached_rag.generate"

END_TOKENS: Final = ("<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|return|>", "<|call|>")
"""Control tokens that end an answer, sent as stop ids where a vocabulary has them: an engine that is given raw ids
knows no template, and may know one end of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One question, and how it is to be answered."""

    retrieve: RetrieveRequest
    max_tokens: int = 1024
    temperature: float | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Generated:
    """An answer and how it came about."""

    retrieved: Retrieved
    prompt_token_ids: TokenIds
    """What the engine was given, or what the text it was given stands for."""
    completion: Completion
    engine: Engine
    latency_ms: float
    generate_ms: float
    """The engine's part of it."""
    first_token_ms: float | None = None
    """From the prompt being sent to the first piece; None for answers that came as a whole."""

    @property
    def context_tokens(self) -> int:
        """Return how many of the prompt's ids are retrieved context."""
        return len(self.retrieved.context.token_ids)

    @property
    def query_tokens(self) -> int:
        """Return how many of the prompt's ids are not context: the question, and without passages all of the frame."""
        return len(self.prompt_token_ids) - self.context_tokens


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Prompt:
    retrieved: Retrieved
    token_ids: TokenIds
    options: GenerationOptions


Part: TypeAlias = Piece | Generated
"""What a stream yields: pieces, and at last the answer."""


class GenerationService:
    """Answers questions with an engine. Lives as long as its process; for one event loop."""

    def __init__(self, retriever: Retriever, client: GenerationClient | None, *, handshake: bool = True) -> None:
        """Put the parts together.

        Args:
            retriever: Finds the context.
            client: The engine; None refuses every question. Closed with the service.
            handshake: Whether ids are compared before they are sent to an engine with a tokenizer of its own.
        """
        self._retriever = retriever
        self._client = client
        self._handshake = Handshake(client) if client and handshake and client.engine.tokenizes else None

    async def generate(self, request: GenerateRequest) -> Generated:
        """Answer one question; cancelling the call ends the engine's work.

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: A parameter is out of range, or the prompt does not fit the engine.
            Conflict: No engine is configured, or it tokenizes otherwise than the corpus' spec.
            Unavailable: Search, embedder or engine did not answer, or not to the end.
        """
        client = self._require_client()
        began = time.perf_counter()
        with TRACER.start_as_current_span(SPAN) as span, _counted(client):
            prompt = await self._prepare(client, request)
            sent = time.perf_counter()
            completion = await client.generate_from_token_ids(prompt.token_ids, **prompt.options)
            answer = _generated(client, prompt, completion, began=began, sent=sent)
            span.set_attributes(_attributes(answer))
            return answer

    async def stream(self, request: GenerateRequest) -> AsyncGenerator[Part]:
        """Answer one question piece by piece, and at last as a whole; errors as `generate`.

        Closing the generator ends the engine's work.
        """
        client = self._require_client()
        began = time.perf_counter()
        span = TRACER.start_span(SPAN)
        try:
            with _counted(client):
                with inside(span):
                    prompt = await self._prepare(client, request)
                sent = time.perf_counter()
                first_ms: float | None = None
                async with aclosing(client.stream_from_token_ids(prompt.token_ids, **prompt.options)) as parts:
                    async for part in parts:
                        if first_ms is None:
                            first_ms = _ms_since(sent)
                            metrics.GENERATION_FIRST_TOKEN.observe(first_ms / 1000)
                        if isinstance(part, Completion):
                            answer = _generated(client, prompt, part, began=began, sent=sent, first_token_ms=first_ms)
                            span.set_attributes(_attributes(answer))
                            yield answer
                        else:
                            yield part
        except ForefillError as error:
            span.record_exception(error)
            raise
        finally:
            span.end()

    async def close(self) -> None:
        """Close the engine's connections."""
        if self._client is not None:
            await self._client.aclose()

    def _require_client(self) -> GenerationClient:
        if self._client is None:
            raise Conflict(
                "no engine is configured: set FOREFILL_ENGINE_KIND (vllm, sglang, llamacpp, openai, anthropic, mock), "
                "FOREFILL_ENGINE_URL and FOREFILL_MODEL"
            )
        return self._client

    async def _prepare(self, client: GenerationClient, request: GenerateRequest) -> _Prompt:
        asked = request.retrieve
        spec = await self._retriever.spec(asked)
        if self._handshake is not None:
            await self._handshake.require_same_ids(spec)
        room = await _room(client, spec, request)
        budget = asked.max_context_tokens if room is None else min(asked.max_context_tokens, room)
        retrieved = await self._retriever.retrieve(replace(asked, spec=spec.spec_id, max_context_tokens=budget))
        token_ids = prompt_ids(retrieved.spec, retrieved.context, asked.query)
        options: GenerationOptions = {
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "stop": request.stop,
            "stop_token_ids": stop_token_ids(retrieved.spec),
        }
        if client.engine.takes == "text":
            options["segments"] = rendered_segments(retrieved.spec, retrieved.context, asked.query)
        return _Prompt(retrieved=retrieved, token_ids=token_ids, options=options)


def stop_token_ids(spec: TokenSpec) -> tuple[int, ...]:
    """Return the ids of a vocabulary that end an answer."""
    specials = spec.tokenizer.identity.special_tokens
    return tuple(sorted({specials[name] for name in END_TOKENS if name in specials}))


async def _room(client: GenerationClient, spec: TokenSpec, request: GenerateRequest) -> int | None:
    """Return how many tokens of context fit the engine's window; None if that is unknown.

    Raises:
        InvalidInput: Not even question and answer fit.
    """
    window = (await client.limits()).window_tokens
    if window is None:
        return None
    question = len(question_ids(spec, request.retrieve.query))
    if question + request.max_tokens > window:
        raise InvalidInput(
            f"the question's {question:,} tokens and max_tokens {request.max_tokens:,} exceed the engine's window of "
            f"{window:,} tokens",
            item="max_tokens",
        )
    return window - question - request.max_tokens


def _generated(
    client: GenerationClient,
    prompt: _Prompt,
    completion: Completion,
    *,
    began: float,
    sent: float,
    first_token_ms: float | None = None,
) -> Generated:
    metrics.GENERATION_TOKENS.labels("prompt").inc(completion.usage.prompt_tokens)
    metrics.GENERATION_TOKENS.labels("answer").inc(completion.usage.completion_tokens)
    return Generated(
        retrieved=prompt.retrieved,
        prompt_token_ids=prompt.token_ids,
        completion=completion,
        engine=client.engine,
        latency_ms=_ms_since(began),
        generate_ms=_ms_since(sent),
        first_token_ms=first_token_ms,
    )


def _attributes(answer: Generated) -> dict[str, bool | int | float]:
    return {
        "cache_hit": answer.retrieved.cache_hit,
        "doc_count": len(answer.retrieved.context.passages),
        "token_count": len(answer.prompt_token_ids),
        "latency_ms": answer.latency_ms,
    }


def _ms_since(moment: float) -> float:
    return (time.perf_counter() - moment) * 1000


@contextmanager
def _counted(client: GenerationClient) -> Iterator[None]:
    """Count how one answer ends."""
    outcome = "cancelled"
    try:
        yield
        outcome = "answered"
    except Unavailable:
        outcome = "unavailable"
        raise
    except ForefillError:
        outcome = "refused"
        raise
    finally:
        metrics.GENERATIONS.labels(client.engine.kind, outcome).inc()
