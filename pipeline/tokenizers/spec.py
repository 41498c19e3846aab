"""Token specs: all that decides the ids of a prompt, prepared for use.

Building a spec measures the frame's own seams with the real tokenizer and refuses frames that have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import ExactnessError
from pipeline.framing import Frame, Text, TokenIds, reference_ids, right_neighbours
from pipeline.tokenizers.edges import always_cuts_behind
from pipeline.tokenizers.fingerprints import spec_fingerprint
from pipeline.tokenizers.golden_ids import Golden, compute_golden, packaged_golden, require_golden
from pipeline.tokenizers.tokenizer import Tokenizer

_PREPARED_HEADERS = 128
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What may follow a piece, and the ids it has when it begins a token of its own."""

    text: str
    """A single character, or empty for the end of the text."""
    ids: TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class TokenSpec:
    """Encoding and frame. Compared by identity: two objects with one fingerprint are interchangeable.

    Made by `build_spec`; immutable and safe to share between threads.
    """

    spec_id: str
    """`ENCODING/FRAME`, for instance `o200k_base/plain`."""
    tokenizer: Tokenizer
    frame: Frame
    fingerprint: str
    """32 lower-case hex characters; part of every cache key."""
    golden: Golden
    """Golden ids as this process computed them."""
    next_header: Neighbour
    """What follows a passage that is not the last."""
    context_ends: tuple[Neighbour, ...]
    """What may follow the last passage, or the prefix of a prompt without any; the question's prefix is the first."""
    prefix_ids: TokenIds
    """Ids of the frame's prefix, the same before every neighbour."""
    header_ids: tuple[TokenIds, ...]
    """Ids of the first headers; `encode_header` knows the others."""
    cuts_behind_passages: bool
    """Whether the ids of every passage are known to be the same before all neighbours (see `edges`)."""

    @property
    def neighbours(self) -> tuple[Neighbour, ...]:
        """Return all that may follow a passage."""
        return (self.next_header, *self.context_ends)

    @property
    def encoding(self) -> str:
        """Return the vocabulary's name."""
        return self.tokenizer.encoding

    @property
    def reference_tokenizer(self) -> Tokenizer:
        """Return the slow tokenizer, which oracles ask: `tokenizer` may be a fast twin of it."""
        return self.tokenizer.reference

    def __repr__(self) -> str:
        return f"<TokenSpec {self.spec_id} {self.fingerprint}>"


def build_spec(tokenizer: Tokenizer, *, frame: Frame) -> TokenSpec:
    """Prepare a spec; takes about a millisecond once the tokenizer is loaded.

    Raises:
        InvalidInput: The frame names a control token that the vocabulary lacks.
        ExactnessError: The tokenizer does not cut at the frame's own seams.
    """
    golden = compute_golden(tokenizer)
    next_header, *ends = (Neighbour(text=text, ids=tokenizer.encode(text)) for text in right_neighbours(frame))
    reference_ids(frame.suffix, tokenizer)  # its control tokens exist
    return TokenSpec(
        spec_id=f"{tokenizer.encoding}/{frame.name}",
        tokenizer=tokenizer,
        frame=frame,
        fingerprint=spec_fingerprint(tokenizer.identity, frame=frame, golden_ids=golden.ids),
        golden=golden,
        next_header=next_header,
        context_ends=tuple(ends),
        prefix_ids=_frozen(_prefix_ids(tokenizer, frame=frame, neighbours=(next_header, *ends))),
        header_ids=tuple(
            _frozen(header_ids(tokenizer, frame=frame, neighbour=next_header, number=number))
            for number in range(1, _PREPARED_HEADERS + 1)
        ),
        cuts_behind_passages=always_cuts_behind(frame, tokenizer),
    )


def check_golden(spec: TokenSpec, *, recorded: Golden | None = None) -> None:
    """Refuse to serve with a library that computes other ids than were recorded. Called at process start.

    Args:
        spec: The spec as this process built it.
        recorded: What was stored with the spec; by default what is packaged for its encoding.

    Raises:
        ExactnessError: An id differs.
        InvalidInput: Nothing is packaged for the encoding and nothing was given.
    """
    expected = packaged_golden(spec.encoding) if recorded is None else recorded
    require_golden(expected, encoder=spec.tokenizer, name=spec.spec_id)


def ids_before(tokenizer: Tokenizer, text: str, *, neighbour: Neighbour) -> TokenIds | None:
    """Return the ids that text has when the neighbour follows, or None if no token edge falls between them.

    The neighbour is a guard: it is encoded with the text and its own token dropped.
    """
    ids = tokenizer.encode(text + neighbour.text)
    return without_guard(ids, neighbour=neighbour)


def common_ids(tokenizer: Tokenizer, text: str, *, neighbours: Sequence[Neighbour]) -> TokenIds | None:
    """Return the ids that text has before every one of the neighbours, or None if it has no such ids."""
    return _agreed([ids_before(tokenizer, text, neighbour=neighbour) for neighbour in neighbours])


def same_ids(left: TokenIds, right: TokenIds) -> bool:
    """Tell whether two short arrays hold the same ids, several times faster than `numpy.array_equal`."""
    return left.tobytes() == right.tobytes()


def without_guard(ids: TokenIds, *, neighbour: Neighbour) -> TokenIds | None:
    """Return ids without the guard's at their end, or None if they do not end in those."""
    edge = len(ids) - len(neighbour.ids)
    if edge < 0 or not same_ids(ids[edge:], neighbour.ids):
        return None
    return ids[:edge]


def header_ids(tokenizer: Tokenizer, *, frame: Frame, neighbour: Neighbour, number: int) -> TokenIds:
    """Return the ids of a header, encoded with a letter standing in for the passage.

    Raises:
        ExactnessError: No token edge falls between the header and the letter.
    """
    text = frame.header_text(number)
    ids = ids_before(tokenizer, text, neighbour=neighbour)
    if ids is None:
        raise ExactnessError(
            f"{tokenizer.encoding} does not cut after the header of frame {frame.name}: "
            f"{_shown_ids(tokenizer, text, [neighbour])}"
        )
    return ids


def _prefix_ids(tokenizer: Tokenizer, *, frame: Frame, neighbours: tuple[Neighbour, ...]) -> TokenIds:
    ids = _agreed(
        [
            without_guard(reference_ids((*frame.prefix, Text(neighbour.text)), tokenizer), neighbour=neighbour)
            for neighbour in neighbours
        ]
    )
    if ids is None:
        last = frame.prefix[-1]
        text = last.text if isinstance(last, Text) else ""
        raise ExactnessError(
            f"{tokenizer.encoding} does not cut after the prefix of frame {frame.name}: "
            f"{_shown_ids(tokenizer, text, neighbours)}"
        )
    return ids


def _shown_ids(tokenizer: Tokenizer, text: str, neighbours: Sequence[Neighbour]) -> str:
    """Return the example that shows a seam to be none: the last ids of a text before each neighbour."""
    examples = []
    for neighbour in neighbours:
        ids = tokenizer.encode(text + neighbour.text)[-_SHOWN:].tolist()
        examples.append(f"{text[-_SHOWN:] + neighbour.text!r} ends in the ids {ids}")
    return ", ".join(examples)


def _agreed(found: Sequence[TokenIds | None]) -> TokenIds | None:
    first = found[0]
    if first is None or not all(ids is not None and same_ids(ids, first) for ids in found[1:]):
        return None
    return first


def _frozen(ids: TokenIds) -> TokenIds:
    copy = ids.copy()
    copy.setflags(write=False)
    return copy
