"""Encoding the pieces of a prompt apart, so that put together they have the reference ids.

Each piece is encoded in the presence of what stands beside it: the header before a passage, and after its separator the
first character of whatever may follow. The neighbours' tokens are dropped again. Where a token edge does not fall on
the seam, or the ids depend on which neighbour follows, the edge is unsafe and the assembler encodes around it.
"""

from dataclasses import dataclass

from pipeline.errors import InvalidInput
from pipeline.framing import TokenIds, question_segments, reference_ids
from pipeline.tokenizers.spec import TokenSpec, common_ids, header_ids, same_ids, without_guard

_WINDOW_CHARACTERS = 32


@dataclass(frozen=True, slots=True)
class EncodedPassage:
    """The ids of one passage under one spec: what a cache entry holds."""

    ids: TokenIds
    """Ids of the passage and the frame's separator. They decode to exactly that text, safe or not."""
    right_safe: bool
    """Whether the ids are right beside every neighbour. False: only their text may be used, encoded anew in place."""

    @property
    def token_count(self) -> int:
        """Return the number of ids, the separator's included."""
        return len(self.ids)


def encode_passage(spec: TokenSpec, text: str) -> EncodedPassage:
    """Encode a passage with its separator, guarded on both sides.

    Args:
        spec: What decides the ids.
        text: A passage: stripped of outer white space (`str.strip`), not empty.

    Raises:
        InvalidInput: The text is empty, not stripped, holds a lone surrogate, or the tokenizer gives up on it.
    """
    if not text or text[0].isspace() or text[-1].isspace():
        raise InvalidInput("a passage is never empty and has no white space at its ends")
    body = text + spec.frame.separator
    ids = _ids_in_place(spec, body)
    if ids is None or not _same_before_all(spec, body):
        return EncodedPassage(ids=spec.tokenizer.encode(body), right_safe=False)
    return EncodedPassage(ids=ids, right_safe=True)


def encode_header(spec: TokenSpec, number: int) -> TokenIds:
    """Return the ids of the header of the passage with this number, counted from 1.

    Raises:
        ExactnessError: The tokenizer does not cut after it.
    """
    if 1 <= number <= len(spec.header_ids):
        return spec.header_ids[number - 1]
    return header_ids(spec.tokenizer, frame=spec.frame, neighbour=spec.next_header, number=number)


def encode_prefix(spec: TokenSpec) -> TokenIds:
    """Return the ids of the frame's prefix: those of a context with no passages."""
    return spec.prefix_ids


def question_ids(spec: TokenSpec, question: str) -> TokenIds:
    """Return the ids of everything from the question's prefix on: the prompt's rest after its context.

    Prefix, question and suffix are one run up to the next control token, since `"Question: "` and a question encoded
    apart are wrong most of the time. The question is used verbatim, even if empty or white space.

    Raises:
        InvalidInput: The question holds a lone surrogate, or the tokenizer gives up on it.
    """
    return reference_ids(question_segments(spec.frame, question), spec.tokenizer)


def _ids_in_place(spec: TokenSpec, body: str) -> TokenIds | None:
    """Return the body's ids between the first header and the first neighbour; None if a seam is no token edge."""
    header = spec.header_ids[0]
    guard = spec.next_header
    framed = without_guard(spec.tokenizer.encode(spec.frame.header_text(1) + body + guard.text), neighbour=guard)
    if framed is None or not same_ids(framed[: len(header)], header):
        return None
    return framed[len(header) :]


def _same_before_all(spec: TokenSpec, body: str) -> bool:
    """Tell whether the ids next to the edge are the same before every neighbour.

    Only the last characters are encoded again: a neighbour can act on ids further left only through those between.
    """
    window = body[-_WINDOW_CHARACTERS:]
    return common_ids(spec.tokenizer, window, neighbours=spec.neighbours) is not None
