"""Whole prompts from whole texts, by the slow oracle alone: nothing cached, nothing put together from pieces.

An audit compares assembled prompts with these, and they are what is answered where entries or assembler are not to be
trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.context.assembly import AssembledContext, prompt_ids
from pipeline.context.ordering import Order, order_passages
from pipeline.context.passages import ContextPassage
from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import NO_IDS, TokenIds, context_segments, prompt_segments, reference_ids
from pipeline.tokenizers import TokenSpec, common_ids, question_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePassage:
    """One found passage with its whole text."""

    passage_key: bytes
    """Names the passage by its content, 16 bytes."""
    text: str
    document_id: str
    ordinal: int
    generation: int
    score: float


@dataclass(frozen=True, slots=True)
class Difference:
    """Where an assembled prompt is not what it should be. Holds neither text nor ids, so that it can be logged."""

    what: Literal["passage", "prompt", "context"]
    """`passage`: an entry's ids do not spell the passage's text. `prompt`: the ids are not the reference ids.
    `context`: they are, and yet the context's part of them is not what its text alone has."""
    place: int
    """The passage's place in the prompt, or that of the first id that differs; from 0."""
    passage_keys: tuple[bytes, ...]
    """The passage, or all of the prompt's in their order."""

    def __str__(self) -> str:
        """Return what differs, without the keys."""
        if self.what == "passage":
            return f"the ids of passage {self.place + 1} do not spell its text"
        return f"the ids of the {self.what} differ from the reference at place {self.place}"


def find_difference(
    spec: TokenSpec, context: AssembledContext, texts: Sequence[str], question: str
) -> Difference | None:
    """Compare an assembled prompt with the reference ids of the same prompt; None if they are equal.

    Args:
        spec: The spec it was assembled under.
        context: The context as it would be answered.
        texts: The true text of each passage, in prompt order, whole also where the prompt has it cut.
        question: What stands behind the context.

    Raises:
        InvalidInput: The tokenizer refuses the question or a text: there are no reference ids.
    """
    used: list[str] = []
    for place, (passage, text) in enumerate(zip(context.passages, texts, strict=True)):
        spelt = _text_used(spec, passage.ids, text, is_cut=passage.cut)
        if spelt is None:
            return Difference("passage", place, (passage.passage_key,))
        used.append(spelt)
    keys = tuple(passage.passage_key for passage in context.passages)
    expected = reference_ids(prompt_segments(spec.frame, used, question), spec.reference_tokenizer)
    differs_at = _first_difference(prompt_ids(spec, context, question), expected)
    if differs_at is not None:
        return Difference("prompt", differs_at, keys)
    if not spec.frame.has_controls:
        own = reference_ids(context_segments(spec.frame, used), spec.reference_tokenizer)
        differs_at = _first_difference(context.token_ids, own)
        if differs_at is not None:
            return Difference("context", differs_at, keys)
    return None


def reference_context(
    spec: TokenSpec,
    passages: Sequence[WholePassage],
    question: str,
    *,
    max_context_tokens: int,
    order: Order = "relevance",
) -> AssembledContext:
    """Build the context of a prompt from whole texts: as many as fit, none cut.

    Args:
        spec: What decides the ids.
        passages: By falling relevance; without duplicates and without two generations of one document.
        question: What will stand behind the context; its ids with it are the reference ids of the prompt.
        max_context_tokens: Most ids the context may have.
        order: How the passages stand in the prompt.

    Raises:
        InvalidInput: The tokenizer refuses a text.
        ExactnessError: Not even the frame without passages can be told from the question.
    """
    question = question if _is_spelt(spec, question) else ""  # no prompt will be made with it; a context can
    bare = _context_ids(spec, [], question)
    if bare is None:
        raise ExactnessError(f"{spec.spec_id} has no token edge between frame and question")
    if max_context_tokens < len(bare):
        return AssembledContext(token_ids=NO_IDS, passages=(), truncated=True)
    texts = {passage.passage_key: passage.text for passage in passages}
    taken = _select(spec, passages, room=max_context_tokens - len(bare))
    while taken:
        arranged = order_passages(taken, order=order)
        ids = _context_ids(spec, [texts[passage.passage_key] for passage in arranged], question)
        if ids is not None and len(ids) <= max_context_tokens:
            left_out = len(taken) < len(passages)
            return AssembledContext(token_ids=ids, passages=tuple(arranged), truncated=left_out)
        taken.pop()
    return AssembledContext(token_ids=NO_IDS, passages=(), truncated=bool(passages))


def _select(spec: TokenSpec, passages: Sequence[WholePassage], *, room: int) -> list[ContextPassage]:
    """Take passages until the first that does not fit, by counts that are close: the final ids are counted later."""
    taken: list[ContextPassage] = []
    for number, passage in enumerate(passages, start=1):
        ids = _counted_ids(spec, passage.text + spec.frame.separator)
        room -= len(spec.reference_tokenizer.encode(spec.frame.header_text(number))) + len(ids)
        if room < 0:
            break
        taken.append(
            ContextPassage(
                passage_key=passage.passage_key,
                ids=ids,
                right_safe=False,
                document_id=passage.document_id,
                ordinal=passage.ordinal,
                generation=passage.generation,
                score=passage.score,
                source="off",
            )
        )
    return taken


def _counted_ids(spec: TokenSpec, body: str) -> TokenIds:
    """Return ids of a passage with its separator: they spell it and count it, and never become part of a prompt."""
    in_place = common_ids(spec.reference_tokenizer, body, neighbours=[spec.next_header])
    return spec.reference_tokenizer.encode(body) if in_place is None else in_place


def _context_ids(spec: TokenSpec, texts: Sequence[str], question: str) -> TokenIds | None:
    """Return the reference ids of a prompt up to its question; None if no token edge falls there."""
    whole = reference_ids(prompt_segments(spec.frame, texts, question), spec.reference_tokenizer)
    tail = question_ids(spec, question)
    edge = len(whole) - len(tail)
    if edge < 0 or _first_difference(whole[edge:], tail) is not None:
        return None
    ids = whole[:edge]
    if not spec.frame.has_controls:
        own = reference_ids(context_segments(spec.frame, texts), spec.reference_tokenizer)
        if _first_difference(ids, own) is not None:
            return None
    return ids


def _is_spelt(spec: TokenSpec, question: str) -> bool:
    try:
        question_ids(spec, question)
    except InvalidInput:
        return False
    return True


def _text_used(spec: TokenSpec, ids: TokenIds, text: str, *, is_cut: bool) -> str | None:
    """Return the text of a passage as a prompt holds it, without the separator; None if these ids spell another."""
    try:
        spelt = spec.reference_tokenizer.decode(ids)
    except ExactnessError:
        return None
    separator = spec.frame.separator
    if not is_cut:
        return text if spelt in (text + separator, _normalized(spec, text + separator)) else None
    cut = spelt.removesuffix(_normalized(spec, separator))
    if cut and cut != spelt and (text.startswith(cut) or _normalized(spec, text).startswith(cut)):
        return cut
    return None


def _normalized(spec: TokenSpec, text: str) -> str:
    """Return what a text is to a tokenizer that normalizes: what its ids spell."""
    return spec.reference_tokenizer.decode(spec.reference_tokenizer.encode(text))


def _first_difference(found: TokenIds, expected: TokenIds) -> int | None:
    if found.dtype == expected.dtype and found.tobytes() == expected.tobytes():
        return None
    shared = min(len(found), len(expected))
    different = np.flatnonzero(found[:shared] != expected[:shared])
    if len(different):
        return int(different[0])
    return None if len(found) == len(expected) else shared
