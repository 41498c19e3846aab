"""Frames as data, segments, and the reference ids that every assembled prompt must equal."""

from pipeline.framing.frame import Frame, known_frames, packaged_frame, parse_frame
from pipeline.framing.ragged import RaggedIds
from pipeline.framing.rendering import (
    context_ends,
    context_segments,
    prompt_segments,
    question_segments,
    right_neighbours,
)
from pipeline.framing.segments import (
    NO_IDS,
    Control,
    Segment,
    Text,
    TextEncoder,
    TokenIds,
    joined_ids,
    joined_runs,
    reference_ids,
    segments_as_data,
)

__all__ = [
    "NO_IDS",
    "Control",
    "Frame",
    "RaggedIds",
    "Segment",
    "Text",
    "TextEncoder",
    "TokenIds",
    "context_ends",
    "context_segments",
    "joined_ids",
    "joined_runs",
    "known_frames",
    "packaged_frame",
    "parse_frame",
    "prompt_segments",
    "question_segments",
    "reference_ids",
    "right_neighbours",
    "segments_as_data",
]
