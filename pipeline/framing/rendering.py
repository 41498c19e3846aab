"""How passages and a question stand in a frame, and what may stand beside a passage."""

from collections.abc import Sequence

from pipeline.framing.frame import Frame
from pipeline.framing.segments import Segment, Text


def context_segments(frame: Frame, passages: Sequence[str]) -> list[Segment]:
    """Return the part of a prompt before the question's prefix; also right for zero passages."""
    segments = list(frame.prefix)
    for number, passage in enumerate(passages, start=1):
        segments += (Text(frame.header_text(number)), Text(passage), Text(frame.separator))
    return segments


def question_segments(frame: Frame, question: str) -> list[Segment]:
    """Return the part of a prompt from the question's prefix on."""
    return [Text(frame.question_prefix + question), *frame.suffix]


def prompt_segments(frame: Frame, passages: Sequence[str], question: str) -> list[Segment]:
    """Return a whole prompt. Passages and question are used verbatim, whatever they hold."""
    return [*context_segments(frame, passages), *question_segments(frame, question)]


def context_ends(frame: Frame) -> tuple[str, ...]:
    """Return what may follow a context, as first characters.

    That is the question's prefix and, where a context is plain text whose ids must be its own, the end of the text
    (`""`): the ids of a context must be the beginning of its prompt's.
    """
    return (frame.question_prefix[0],) if frame.has_controls else (frame.question_prefix[0], "")


def right_neighbours(frame: Frame) -> tuple[str, ...]:
    """Return what may follow a passage's separator, as first characters: the next header, or an end of the context.

    A passage's edge is safe if its ids are the same before all of them.
    """
    return (frame.header[0], *context_ends(frame))
