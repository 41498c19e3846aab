"""Auditing: some prompts wait until they were compared with their reference ids, which are used if they differ.

A difference means that an entry holds other ids than its passage has, or that pieces were put together wrongly. Either
way caching is switched off for that corpus and spec until an operator has it verified and enabled again.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pipeline.context import AssembledContext, Difference, Order, find_difference, reference_context
from pipeline.errors import InvalidInput
from pipeline.retrieval.vector_index import Hit
from pipeline.services.caching_switch import CachingSwitch
from pipeline.services.configuration import CorpusView
from pipeline.services.passage_texts import TextSource, by_key, fetch_texts, whole_passages
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger
from pipeline.tokenizers import TokenSpec

_log = get_logger(__name__)

FIRST_PROMPTS = 8
"""So many prompts of a process are audited of each corpus and spec before it becomes a sample."""

_NAMED_KEYS = 8


class AuditSample:
    """Which prompts are audited: the first of each corpus and spec, then some by chance."""

    def __init__(self, *, every: int, first: int = FIRST_PROMPTS, draw: Callable[[], float] = random.random) -> None:
        """Remember the rates.

        Args:
            every: One in so many is audited; 0 for none at all.
            first: So many of each corpus and spec are, before chance decides.
            draw: Returns a number from 0 to below 1.
        """
        self._every = every
        self._first = first
        self._draw = draw
        self._taken: dict[tuple[str, str], int] = {}

    def takes(self, collection: str, spec_id: str) -> bool:
        """Return whether the next prompt of a corpus and spec is audited."""
        if not self._every:
            return False
        taken = self._taken.get((collection, spec_id), 0)
        if taken < self._first:
            self._taken[collection, spec_id] = taken + 1
            return True
        return self._draw() * self._every < 1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """One prompt as it is about to be answered."""

    view: CorpusView
    spec: TokenSpec
    question: str
    max_context_tokens: int
    order: Order
    hits: Sequence[Hit]
    """What it was made of, by falling relevance; perhaps more than fitted."""
    context: AssembledContext


class Auditor:
    """Compares a sample of prompts with the reference. Lives as long as its process; for one event loop."""

    def __init__(self, texts: TextSource, *, switch: CachingSwitch, sample: AuditSample) -> None:
        self._texts = texts
        self._switch = switch
        self._sample = sample

    async def audited(self, prompt: Prompt) -> AssembledContext:
        """Return the context to answer with: the prompt's own, or the reference one if they differ.

        An audit that cannot be done is counted, and changes nothing.

        Raises:
            ExactnessError: They differ, and there is no reference one.
        """
        context = prompt.context
        if not context.passages or not self._sample.takes(prompt.view.collection, prompt.spec.spec_id):
            return context
        outcome, texts, difference = await self._look(prompt)
        metrics.EXACTNESS_CHECKS.labels(outcome).inc()
        if difference is None:
            return context
        self._report(prompt, difference)
        return await self._substitute(prompt, texts)

    async def _look(self, prompt: Prompt) -> tuple[str, dict[bytes, str], Difference | None]:
        """Return an audit's outcome, the passages' texts by key, and what differs."""
        context = prompt.context
        keys = [passage.passage_key for passage in context.passages]
        hits = by_key(prompt.hits)
        try:
            texts = await fetch_texts(self._texts, prompt.view.collection, {key: hits[key] for key in keys})
            if len(texts) < len(keys):
                return "skipped", texts, None  # changed since the search: there is nothing to compare with
            true_texts = [texts[key] for key in keys]
            difference = await asyncio.to_thread(find_difference, prompt.spec, context, true_texts, prompt.question)
        except InvalidInput:
            return "skipped", {}, None  # a question that the tokenizer cannot spell
        except Exception as error:  # noqa: BLE001  # an answer must not be lost to its own audit
            _log.warning("audit.failed", corpus=prompt.view.name, spec=prompt.spec.spec_id, error=str(error))
            return "failed", {}, None
        return "equal" if difference is None else "different", texts, difference

    def _report(self, prompt: Prompt, difference: Difference) -> None:
        keys = [key.hex() for key in difference.passage_keys]
        _log.error(
            "audit.different",
            corpus=prompt.view.name,
            spec=prompt.spec.spec_id,
            what=difference.what,
            place=difference.place,
            passage_keys=keys,
            sources=[passage.source for passage in prompt.context.passages],
        )
        named = ", ".join(keys[:_NAMED_KEYS]) + (f" and {len(keys) - _NAMED_KEYS} more" if keys[_NAMED_KEYS:] else "")
        reason = f"an audit found that {difference}; passage keys: {named}"
        self._switch.switch_off(prompt.view, prompt.spec.spec_id, reason=reason)

    async def _substitute(self, prompt: Prompt, texts: dict[bytes, str]) -> AssembledContext:
        found = await asyncio.to_thread(
            reference_context,
            prompt.spec,
            whole_passages(prompt.hits, texts),
            prompt.question,
            max_context_tokens=prompt.max_context_tokens,
            order=prompt.order,
        )
        return replace(found, truncated=found.truncated or prompt.context.truncated)
