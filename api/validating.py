"""Validating a spec in a process of its own, one at a time: questions are answered meanwhile.

A validation lives as long as its caller waits for it. Who leaves takes it along, so that the next one may begin.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.to_process
import anyio.to_thread
from anyio import CancelScope, CapacityLimiter
from fastapi import Request
from starlette.requests import ClientDisconnect

from api.streaming import caller_left
from pipeline.context import ValidationReport
from pipeline.errors import InvalidInput, Unavailable
from pipeline.services.spec_adding import VALIDATION_SEED, NewSpec, build_new_spec, validate_new_spec

_BASE_TIMEOUT_S = 120.0
_TIMEOUT_S_PER_CONTEXT = 0.01
"""Twenty times what one takes: a machine may be busy, and a tokenizer made to be slow holds nobody up for long."""

_lock = asyncio.Lock()

T = TypeVar("T")


class Validation:
    """What is done for one caller, in a thread and then in a process.

    Args:
        contexts: Generated contexts to try.
    """

    def __init__(self, contexts: int) -> None:
        self._contexts = contexts
        self._is_abandoned = False
        self._scope: CancelScope | None = None

    def abandon(self) -> None:
        """End the process, if there is one, and begin none; for the event loop's thread."""
        self._is_abandoned = True
        if self._scope is not None:
            self._scope.cancel()

    def validate(self, new: NewSpec, corpus_texts: Sequence[str], seed: int = VALIDATION_SEED) -> ValidationReport:
        """Validate in a process of its own; called in the thread.

        Raises:
            InvalidInput: Some ids would be wrong, or it took too long.
            ClientDisconnect: The caller left.
        """
        return anyio.from_thread.run(self._validate, new, corpus_texts, seed)

    async def _validate(self, new: NewSpec, corpus_texts: Sequence[str], seed: int) -> ValidationReport:
        limit_s = _BASE_TIMEOUT_S + _TIMEOUT_S_PER_CONTEXT * self._contexts
        with anyio.move_on_after(limit_s) as self._scope:
            await self._start_process()
            if not self._is_abandoned:
                work = partial(_validate_here, new, corpus_texts, seed, self._contexts)
                return await anyio.to_process.run_sync(work, cancellable=True)
        if self._is_abandoned:
            raise ClientDisconnect
        raise InvalidInput(f"validating took over {limit_s:,.0f} s", item="tokenizer_json")

    async def _start_process(self) -> None:
        """Have a process that the next call takes; its start is not cancelled, since anyio would leave it running."""
        with CancelScope(shield=True):
            await anyio.to_process.run_sync(_nothing)
            if self._is_abandoned:
                with suppress(anyio.BrokenWorkerProcess):  # it ends instead of answering
                    await anyio.to_process.run_sync(os._exit, 0)


async def while_wanted(request: Request, work: Callable[[Validation], T], *, contexts: int) -> T:
    """Return what some work comes to that validates a spec; it ends early when its caller leaves.

    Args:
        request: Whose body was read already.
        work: Runs in a thread of its own, so that it keeps none from other requests.
        contexts: Generated contexts to try.

    Raises:
        Unavailable: Another spec is being validated.
        ClientDisconnect: The caller left, and nothing was recorded.
    """
    async with _one_at_a_time():
        validation = Validation(contexts)
        leaving = asyncio.ensure_future(caller_left(request))
        leaving.add_done_callback(lambda _left: validation.abandon())
        try:
            return await anyio.to_thread.run_sync(partial(work, validation), limiter=CapacityLimiter(1))
        finally:
            leaving.cancel()


@asynccontextmanager
async def _one_at_a_time() -> AsyncIterator[None]:
    if _lock.locked():
        raise Unavailable("another spec is being validated", service="specs", retry_after_s=10.0)
    async with _lock:
        yield


def _nothing() -> None:
    """Be called in the process."""


def _validate_here(new: NewSpec, corpus_texts: Sequence[str], seed: int, contexts: int) -> ValidationReport:
    spec, _ = build_new_spec(new)
    return validate_new_spec(new, spec, contexts=contexts, corpus_texts=corpus_texts, seed=seed)
