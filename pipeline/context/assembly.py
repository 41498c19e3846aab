"""Putting cached pieces together so that nobody could tell them from the whole prompt's reference ids.

Passages with safe edges are concatenated. Around an unsafe one the run from its header to the next safe seam is decoded
and encoded anew: an entry's ids always decode to exactly its text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from pipeline.context.budget import select_within_budget
from pipeline.context.cutting import cut_passage
from pipeline.context.ordering import Order, order_passages
from pipeline.context.passages import ContextPassage
from pipeline.errors import ExactnessError
from pipeline.framing import NO_IDS, Segment, Text, TokenIds, joined_ids, joined_runs, question_segments
from pipeline.tokenizers import Neighbour, TokenSpec, common_ids, encode_header, encode_prefix, question_ids


@dataclass(frozen=True, slots=True, eq=False)
class AssembledContext:
    """A prompt's ids up to its question; without passages there are none, and the frame is the question's."""

    token_ids: TokenIds
    """Reference ids of the frame's prefix and the passages; empty without passages."""
    passages: tuple[ContextPassage, ...]
    """Exactly the passages in `token_ids`, in prompt order. Only the last can be cut."""
    truncated: bool
    """Whether the budget left something out, or is smaller than the frame's prefix."""


def assemble(
    spec: TokenSpec, passages: Sequence[ContextPassage], *, max_context_tokens: int, order: Order = "relevance"
) -> AssembledContext:
    """Build the context of a prompt.

    Args:
        spec: The spec that all passages were encoded under.
        passages: By falling relevance; without duplicates and without two generations of one document.
        max_context_tokens: Most ids the context may have.
        order: How the passages stand in the prompt. The whole ones that are taken do not depend on it. `relevance`
            fills the room that is left with the beginning of the next one. `stable` cuts none: in a prompt with the
            same passages before another question the cut would fall elsewhere.

    Raises:
        ExactnessError: An unsafe edge cannot be made exact.
    """
    if max_context_tokens < len(encode_prefix(spec)):
        return AssembledContext(token_ids=NO_IDS, passages=(), truncated=True)
    cut_last = order == "relevance"
    taken = select_within_budget(spec, passages, max_context_tokens=max_context_tokens, cut_last=cut_last)
    for attempt in count():
        arranged = order_passages(taken, order=order)
        ids = concatenate(spec, arranged)
        over = len(ids) - max_context_tokens
        if over <= 0:
            break
        last = taken.pop()  # runs encoded anew can be longer than the entries said
        room = last.token_count - (over << attempt)  # each attempt encodes a run, so there shall be few
        if cut_last and (smaller := cut_passage(spec, last, room_tokens=room)) is not None:
            taken.append(smaller)
    truncated = len(taken) < len(passages) or any(passage.cut for passage in taken)
    return AssembledContext(token_ids=ids if taken else NO_IDS, passages=tuple(arranged), truncated=truncated)


def concatenate(spec: TokenSpec, passages: Sequence[ContextPassage]) -> TokenIds:
    """Return the reference ids of the frame's prefix and these passages, in this order.

    Raises:
        ExactnessError: An unsafe edge cannot be made exact.
    """
    parts = [encode_prefix(spec)]
    unsafe = ""  # text since the last safe seam
    for number, passage in enumerate(passages, start=1):
        if not passage.right_safe:
            unsafe += spec.frame.header_text(number) + spec.tokenizer.decode(passage.ids)
            continue
        if unsafe:
            parts.append(_run_ids(spec, unsafe + spec.frame.header_text(number), [spec.next_header]))
            unsafe = ""
        else:
            parts.append(encode_header(spec, number))
        parts.append(passage.ids)
    if unsafe:
        parts.append(_run_ids(spec, unsafe, spec.context_ends))
    return joined_ids(parts)


def prompt_ids(spec: TokenSpec, context: AssembledContext, question: str) -> TokenIds:
    """Return the ids of the whole prompt: the context's, then everything from the question's prefix on.

    Without passages that is the frame around the question, whatever the context's budget was: no engine gets a chat
    without its beginning.

    Raises:
        InvalidInput: The question cannot be encoded.
    """
    context_ids = context.token_ids if context.passages else encode_prefix(spec)
    return joined_ids((context_ids, question_ids(spec, question)))


def rendered_segments(spec: TokenSpec, context: AssembledContext, question: str | None = None) -> list[Segment]:
    """Return the segments whose reference ids the context's ids are, runs of text joined.

    Args:
        spec: The spec it was assembled under.
        context: The context.
        question: Continues them to the whole prompt, whose ids `prompt_ids` gives; None for the context alone.
    """
    if question is None and not context.passages:
        return []
    segments = list(spec.frame.prefix)
    for number, passage in enumerate(context.passages, start=1):
        segments += (Text(spec.frame.header_text(number)), Text(spec.tokenizer.decode(passage.ids)))
    if question is not None:
        segments += question_segments(spec.frame, question)
    return list(joined_runs(segments))


def prompt_text(spec: TokenSpec, context: AssembledContext, question: str | None = None) -> str | None:
    """Return what `rendered_segments` returns as one text, or None if the frame has control tokens."""
    if spec.frame.has_controls:
        return None
    segments = rendered_segments(spec, context, question)
    return "".join(segment.text for segment in segments if isinstance(segment, Text))


def _run_ids(spec: TokenSpec, text: str, neighbours: Sequence[Neighbour]) -> TokenIds:
    """Encode a run that one of these neighbours follows; all must agree."""
    ids = common_ids(spec.tokenizer, text, neighbours=neighbours)
    if ids is None:
        raise ExactnessError(f"{spec.spec_id} has no token edge behind this passage, whatever is done")
    return ids
