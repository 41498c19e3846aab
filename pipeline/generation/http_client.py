"""An engine behind HTTP: a dialect says what is sent and read, a connection sends it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Unpack

import numpy as np

from pipeline.errors import Unavailable
from pipeline.generation.client import (
    Completion,
    Engine,
    EngineLimits,
    GenerationOptions,
    GenerationRequest,
    Piece,
    PromptIds,
)
from pipeline.generation.dialects import Dialect
from pipeline.generation.http_connection import HttpConnection, answer_bytes, streamed_bytes
from pipeline.generation.refusals import SERVICE
from pipeline.generation.requests import check_limits, check_request
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

LIMITS_FRESH_S = 60.0
"""Seconds after which an engine is asked again about its window: another model may be served by then."""


class HttpEngineClient:
    """A `GenerationClient` over HTTP."""

    def __init__(
        self,
        dialect: Dialect,
        connection: HttpConnection,
        *,
        window_tokens: int | None = None,
    ) -> None:
        """Put the parts together; nothing is connected yet.

        Args:
            dialect: Of the engine.
            connection: To it; closed with the client.
            window_tokens: The engine's window, where it does not say it itself or should not be asked.
        """
        self._dialect = dialect
        self._connection = connection
        self._window_tokens = window_tokens
        self._limits: EngineLimits | None = None
        self._limits_until = 0.0

    def __repr__(self) -> str:
        return f"HttpEngineClient({self.engine.kind}, {self._connection!r})"

    @property
    def engine(self) -> Engine:
        """Return what answers."""
        return self._dialect.engine

    async def limits(self) -> EngineLimits:
        """Return the engine's limits; see `GenerationClient`."""
        now = asyncio.get_running_loop().time()
        if self._limits is None or now >= self._limits_until:
            self._limits = await self._asked_limits()
            self._limits_until = now + LIMITS_FRESH_S
        return self._limits

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return a text's ids; see `GenerationClient`."""
        if self._dialect.estimator is not None:
            ids: list[int] = self._dialect.estimator.encode(text).tolist()
            return ids
        call = self._dialect.tokenization(text, special=special)
        return self._dialect.read_tokens(await self._connection.post(call.path, call.body))

    async def generate_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Return the answer to a prompt; see `GenerationClient`."""
        request = check_request(prompt_token_ids, **options)
        await self._check_limits(request)
        call = self._dialect.completion(request, stream=False)
        max_bytes = answer_bytes(len(request.prompt_token_ids), request.max_tokens)
        completion = self._dialect.read_completion(
            await self._connection.post(call.path, call.body, max_bytes=max_bytes)
        )
        self._check_prompt(request, completion)
        return completion

    async def stream_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Piece | Completion]:
        """Yield the answer piece by piece; see `GenerationClient`."""
        request = check_request(prompt_token_ids, **options)
        await self._check_limits(request)
        call = self._dialect.completion(request, stream=True)
        reading = self._dialect.reading()
        max_bytes = streamed_bytes(len(request.prompt_token_ids), request.max_tokens)
        async with aclosing(self._connection.events(call.path, call.body, max_bytes=max_bytes)) as events:
            async for event in events:
                piece = reading.read(event)
                if piece is not None:
                    yield piece
        completion = reading.finish()
        self._check_prompt(request, completion)
        yield completion

    async def aclose(self) -> None:
        """Close connections."""
        await self._connection.aclose()

    async def _asked_limits(self) -> EngineLimits:
        path = self._dialect.limits_path()
        if path is None or self._window_tokens is not None:
            return EngineLimits(window_tokens=self._window_tokens)
        return self._dialect.read_limits(await self._connection.get(path))

    async def _check_limits(self, request: GenerationRequest) -> None:
        check_limits(request, await self.limits())

    def _check_prompt(self, request: GenerationRequest, completion: Completion) -> None:
        """Refuse an answer to another prompt than was sent: one that the engine began with a BOS or cut, for instance.

        Raises:
            Unavailable: It is; the sentence says how the prompts differ.
        """
        if self.engine.takes == "text":
            return
        sent, read = request.prompt_token_ids, completion.prompt_token_ids
        if completion.usage.prompt_tokens != len(sent):
            counts = f"{completion.usage.prompt_tokens:,} prompt tokens, {len(sent):,} were sent"
            raise Unavailable(f"the engine read {counts}: its answer is to another prompt", service=SERVICE)
        if read is not None and not np.array_equal(sent, np.array(read)):
            raise Unavailable("the engine read other ids than were sent", service=SERVICE)
