"""Segments, the words a prompt is written in, and the reference ids that everything faster must equal.

`reference_ids` is slow on purpose: it sees whole runs of text and nothing cached, so that it can be the oracle.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, assert_never

import numpy as np
from numpy.typing import NDArray

TokenIds: TypeAlias = NDArray[np.uint32]
"""Token ids: one dimension, dtype uint32. Arrays that are handed out are shared; nobody writes into them."""

NO_IDS: TokenIds = np.zeros(0, dtype=np.uint32)
"""The ids of nothing."""
NO_IDS.setflags(write=False)


def joined_ids(parts: Iterable[TokenIds]) -> TokenIds:
    """Return arrays of ids as one, read-only; takes two thirds of the time of `numpy.concatenate`.

    Args:
        parts: Each of dtype uint32 and contiguous.
    """
    buffers: Iterable[Any] = parts  # arrays are buffers, which their types do not say
    return np.frombuffer(b"".join(buffers), dtype=np.uint32)


@dataclass(frozen=True, slots=True)
class Control:
    """A control token, which only a frame may write."""

    name: str
    """The token's text in its vocabulary, for instance `<|im_start|>`."""


@dataclass(frozen=True, slots=True)
class Text:
    """Ordinary text: whatever it spells, it never becomes a control token."""

    text: str


Segment: TypeAlias = Control | Text


class TextEncoder(Protocol):
    """What framing needs of a tokenizer."""

    def encode(self, text: str) -> TokenIds:
        """Return the ids of ordinary text, none of them special.

        Raises:
            InvalidInput: The text is none (lone surrogates) or the tokenizer cannot take it.
        """
        ...

    def control_id(self, name: str) -> int:
        """Return the id of a control token.

        Raises:
            InvalidInput: The vocabulary has no such control token.
        """
        ...


def joined_runs(segments: Iterable[Segment]) -> Iterator[Segment]:
    """Yield the segments with neighbouring texts made one run and empty runs left out."""
    run = ""
    for segment in segments:
        match segment:
            case Text(text):
                run += text
            case Control():
                if run:
                    yield Text(run)
                run = ""
                yield segment
            case _:
                assert_never(segment)
    if run:
        yield Text(run)


def reference_ids(segments: Iterable[Segment], encoder: TextEncoder) -> TokenIds:
    """Return the ids that a prompt has by definition: each control's id, each run of text encoded as a whole."""
    parts: list[TokenIds] = [NO_IDS]
    for segment in joined_runs(segments):
        match segment:
            case Text(text):
                parts.append(encoder.encode(text))
            case Control(name):
                parts.append(np.array([encoder.control_id(name)], dtype=np.uint32))
            case _:
                assert_never(segment)
    return joined_ids(parts)


def segments_as_data(segments: Iterable[Segment]) -> list[dict[str, str]]:
    """Return segments as the API and frame files write them: `[{"control": name} | {"text": text}]`, runs joined."""
    data: list[dict[str, str]] = []
    for segment in joined_runs(segments):
        match segment:
            case Text(text):
                data.append({"text": text})
            case Control(name):
                data.append({"control": name})
            case _:
                assert_never(segment)
    return data
