"""Validating a spec in a process of its own, one at a time: questions are answered meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio.from_thread
import anyio.to_process
import anyio.to_thread
from anyio import CapacityLimiter

from pipeline.context import ValidationReport
from pipeline.errors import InvalidInput, Unavailable
from pipeline.services.spec_adding import VALIDATION_SEED, NewSpec, build_new_spec, validate_new_spec

_TIMEOUT_S = 1800.0
"""Seconds after which a validation is given up."""

_lock = asyncio.Lock()

T = TypeVar("T")


@asynccontextmanager
async def one_at_a_time() -> AsyncIterator[None]:
    """Let one request validate; the next is told to come back.

    Raises:
        Unavailable: Another one does.
    """
    if _lock.locked():
        raise Unavailable("another spec is being validated", service="specs", retry_after_s=10.0)
    async with _lock:
        yield


async def in_own_thread(work: Callable[[], T]) -> T:
    """Run something that takes as long as a validation, so that it keeps no thread from other requests."""
    return await anyio.to_thread.run_sync(work, limiter=CapacityLimiter(1))


def validate_elsewhere(
    new: NewSpec, corpus_texts: Sequence[str], seed: int = VALIDATION_SEED, *, contexts: int
) -> ValidationReport:
    """Validate in a process of its own; called in a thread.

    Raises:
        InvalidInput: Some ids would be wrong, or it took too long.
    """
    return anyio.from_thread.run(_validate_in_process, new, corpus_texts, seed, contexts)


async def _validate_in_process(new: NewSpec, corpus_texts: Sequence[str], seed: int, contexts: int) -> ValidationReport:
    try:
        with anyio.fail_after(_TIMEOUT_S):
            return await anyio.to_process.run_sync(_validate, new, corpus_texts, seed, contexts, cancellable=True)
    except TimeoutError as error:
        raise InvalidInput(f"validating took over {_TIMEOUT_S:g} s", item="tokenizer_json") from error


def _validate(new: NewSpec, corpus_texts: Sequence[str], seed: int, contexts: int) -> ValidationReport:
    spec, _ = build_new_spec(new)
    return validate_new_spec(new, spec, contexts=contexts, corpus_texts=corpus_texts, seed=seed)
