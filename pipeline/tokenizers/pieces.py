"""Encoding the pieces of a prompt apart, so that put together they have the reference ids.

Each piece is encoded in the presence of what stands beside it: the header before a passage, and after its separator the
first character of whatever may follow. The neighbours' tokens are dropped again. Where a token edge does not fall on
the seam, or the ids depend on which neighbour follows, the edge is unsafe and the assembler encodes around it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput
from pipeline.framing import RaggedIds, TokenIds, question_segments, reference_ids
from pipeline.tokenizers.spec import Neighbour, TokenSpec, common_ids, header_ids, same_ids, without_guard

_WINDOW_CHARACTERS = 32
_BATCH_PASSAGES = 4096
"""Passages in one call of a tokenizer: what is copied for it stays below a few dozen megabytes."""


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


@dataclass(frozen=True, slots=True, eq=False)
class EncodedPassages(Sequence[EncodedPassage]):
    """Passages encoded together: their ids in one array, and an object for each only when asked for."""

    ids: RaggedIds
    right_safe: NDArray[np.bool_]
    """Of each passage."""

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> EncodedPassage: ...
    @overload
    def __getitem__(self, index: slice) -> "EncodedPassages": ...
    def __getitem__(self, index: int | slice) -> "EncodedPassage | EncodedPassages":
        """Return one passage, or several over the same memory."""
        if isinstance(index, slice):
            return EncodedPassages(self.ids.part(index), self.right_safe[index])
        return EncodedPassage(ids=self.ids[index], right_safe=bool(self.right_safe[index]))


def encode_passage(spec: TokenSpec, text: str) -> EncodedPassage:
    """Encode a passage with its separator, guarded on both sides.

    Args:
        spec: What decides the ids.
        text: A passage: stripped of outer white space (`str.strip`), not empty.

    Raises:
        InvalidInput: The text is empty, not stripped, holds a lone surrogate, or the tokenizer gives up on it.
    """
    _require_passage(text)
    body = text + spec.frame.separator
    ids = _ids_in_place(spec, body)
    if ids is None or not _same_before_all(spec, body):
        return EncodedPassage(ids=spec.tokenizer.encode(body), right_safe=False)
    return EncodedPassage(ids=ids, right_safe=True)


def encode_passages(spec: TokenSpec, texts: Sequence[str]) -> EncodedPassages:
    """Encode passages as `encode_passage` does each, in few calls of the tokenizer.

    Raises:
        InvalidInput: One of the texts is refused; which one is found by encoding each alone.
    """
    batches = [
        _encode_batch(spec, texts[start : start + _BATCH_PASSAGES]) for start in range(0, len(texts), _BATCH_PASSAGES)
    ]
    return EncodedPassages(
        RaggedIds.concatenated([batch.ids for batch in batches]),
        np.concatenate([np.zeros(0, dtype=np.bool_), *(batch.right_safe for batch in batches)]),
    )


def _encode_batch(spec: TokenSpec, texts: Sequence[str]) -> EncodedPassages:
    for text in texts:
        _require_passage(text)
    header, separator, guard = spec.frame.header_text(1), spec.frame.separator, spec.next_header.text
    framed = spec.tokenizer.encode_batch([f"{header}{text}{separator}{guard}" for text in texts])
    bodies, safe = _bodies_of(spec, framed)
    if not spec.cuts_behind_passages:
        safe &= _are_same_before_all(spec, [text + separator for text in texts])
    if safe.all():
        return EncodedPassages(bodies, safe)
    alone = [
        ids if is_safe else spec.tokenizer.encode(text + separator)
        for ids, is_safe, text in zip(bodies, safe.tolist(), texts, strict=True)
    ]
    return EncodedPassages(RaggedIds.of(alone), safe)


def _bodies_of(spec: TokenSpec, framed: RaggedIds) -> tuple[RaggedIds, NDArray[np.bool_]]:
    """Return the bodies' parts of the ids of framed bodies, and for each whether both its seams are token edges."""
    header, guard = spec.header_ids[0], spec.next_header.ids
    starts, stops = framed.starts + len(header), framed.stops - len(guard)
    whole = starts <= stops
    (which,) = np.nonzero(whole)
    whole[which] = _stand_at(framed.starts[which], header, framed.ids) & _stand_at(stops[which], guard, framed.ids)
    return RaggedIds(framed.ids, starts, np.maximum(starts, stops)), whole


def _stand_at(positions: NDArray[np.int64], wanted: TokenIds, ids: TokenIds) -> NDArray[np.bool_]:
    """Tell of each position whether the wanted ids stand there; none reaches past the end."""
    return np.asarray((ids[positions[:, None] + np.arange(len(wanted))] == wanted).all(axis=1))


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


def _require_passage(text: str) -> None:
    if not text or text.strip() != text:
        raise InvalidInput("a passage is never empty and has no white space at its ends")


def _ids_in_place(spec: TokenSpec, body: str) -> TokenIds | None:
    """Return the body's ids between the first header and the first neighbour; None if a seam is no token edge."""
    return _without_frame(spec, spec.tokenizer.encode(spec.frame.header_text(1) + body + spec.next_header.text))


def _without_frame(spec: TokenSpec, ids: TokenIds) -> TokenIds | None:
    """Return the body's part of the ids of a framed body; None if a seam is no token edge."""
    header = spec.header_ids[0]
    framed = without_guard(ids, neighbour=spec.next_header)
    if framed is None or not same_ids(framed[: len(header)], header):
        return None
    return framed[len(header) :]


def _same_before_all(spec: TokenSpec, body: str) -> bool:
    """Tell whether the ids next to the edge are the same before every neighbour.

    Only the last characters are encoded again: a neighbour can act on ids further left only through those between.
    """
    if spec.cuts_behind_passages:
        return True
    window = body[-_WINDOW_CHARACTERS:]
    return common_ids(spec.tokenizer, window, neighbours=spec.neighbours) is not None


def _are_same_before_all(spec: TokenSpec, bodies: Sequence[str]) -> NDArray[np.bool_]:
    """Tell of each body whether the ids next to its edge are the same before every neighbour."""
    windows = [body[-_WINDOW_CHARACTERS:] for body in bodies]
    first, *others = (_bytes_before(spec, windows, neighbour=neighbour) for neighbour in spec.neighbours)
    same = [found is not None for found in first]
    for other in others:
        same = [so_far and left == right for so_far, left, right in zip(same, first, other, strict=True)]
    return np.array(same, dtype=np.bool_)


def _bytes_before(spec: TokenSpec, windows: Sequence[str], *, neighbour: Neighbour) -> list[bytes | None]:
    """Return the ids of each window before a neighbour as bytes, None where no token edge falls between them.

    Bytes are compared and cut in a fraction of the time that arrays of a few ids take.
    """
    guard = neighbour.ids.tobytes()
    encoded = spec.tokenizer.encode_batch([window + neighbour.text for window in windows])
    return [
        data.removesuffix(guard) if (data := ids.tobytes()).endswith(guard) else None  # whole ids: both ends are
        for ids in encoded
    ]
