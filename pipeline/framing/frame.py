"""Frames: the fixed pieces of a prompt around passages and question, as data.

A good frame puts every seam where pre-tokenizers cut: what stands before a header or a passage ends in a line feed, and
a fixed letter follows each passage. `Frame` refuses shapes that cannot have this; whether a tokenizer really cuts there
is measured when a spec is built and validated.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import orjson

from pipeline.errors import InvalidInput
from pipeline.framing.segments import Control, Segment, Text, segments_as_data
from pipeline.json_input import read_json

_FRAMES = resources.files("pipeline.framing") / "frames"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
_FIELDS = {"name", "prefix", "header", "separator", "question_prefix", "suffix"}


@dataclass(frozen=True, slots=True)
class Frame:
    """The fixed pieces of a prompt.

    A prompt is prefix, then for each passage its header, the passage and the separator, then the question's prefix, the
    question and the suffix. Neighbouring texts are one run. A beginning-of-sequence token is the first control of the
    prefix.
    """

    name: str
    prefix: tuple[Segment, ...]
    """Before everything; may be empty. Its last text ends in a line feed."""
    header: str
    """Before each passage; `{n}` is the passage's number from 1. Begins with a letter and ends in a line feed."""
    separator: str
    """After each passage and cached with it. Ends in a line feed."""
    question_prefix: str
    """Before the question. Begins with a letter."""
    suffix: tuple[Segment, ...]
    """After the question; may be empty."""

    def __post_init__(self) -> None:
        """Refuse what no tokenizer could encode piece by piece."""
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(f"frame name {self.name!r} is not like 'plain' or 'chat-ml'", item="name")
        if self.header.count("{n}") != 1 or not self.header.endswith("\n") or not self.header[0].isalpha():
            raise InvalidInput(
                "a frame's header begins with a letter, holds {n} once and ends in a line feed", item="header"
            )
        if not self.separator.endswith("\n"):
            raise InvalidInput("a frame's separator ends in a line feed", item="separator")
        if not self.question_prefix[:1].isalpha():
            raise InvalidInput("a frame's question prefix begins with a letter", item="question_prefix")
        if self.prefix and isinstance(self.prefix[-1], Text) and not self.prefix[-1].text.endswith("\n"):
            raise InvalidInput("a frame's prefix ends in a control token or a line feed", item="prefix")

    @property
    def has_controls(self) -> bool:
        """Whether a prompt in this frame holds control tokens, so that no text alone has its ids."""
        return any(isinstance(segment, Control) for segment in (*self.prefix, *self.suffix))

    def header_text(self, number: int) -> str:
        """Return the header of the passage with this number, counted from 1."""
        return self.header.replace("{n}", str(number))

    def canonical_json(self) -> bytes:
        """Return the whole frame as JSON with sorted keys: what is hashed, stored, and read back by `parse_frame`."""
        return orjson.dumps(
            {
                "name": self.name,
                "prefix": segments_as_data(self.prefix),
                "header": self.header,
                "separator": self.separator,
                "question_prefix": self.question_prefix,
                "suffix": segments_as_data(self.suffix),
            },
            option=orjson.OPT_SORT_KEYS,
        )


def parse_frame(data: bytes | str) -> Frame:
    """Build a frame from its JSON.

    Raises:
        InvalidInput: It is not JSON, lacks a field, has an unknown one, or is a shape that `Frame` refuses.
    """
    try:
        fields: Any = read_json(data.encode() if isinstance(data, str) else data)
    except InvalidInput as error:
        raise InvalidInput(f"a frame is a JSON object: this one {error}", item="frame") from error
    if not isinstance(fields, dict) or set(fields) != _FIELDS:
        raise InvalidInput(
            f"a frame is a JSON object with exactly the fields {', '.join(sorted(_FIELDS))}", item="frame"
        )
    for name in ("name", "header", "separator", "question_prefix"):
        if not isinstance(fields[name], str):
            raise InvalidInput(f"a frame's {name} is text", item=name)
    return Frame(
        name=fields["name"],
        prefix=_parse_segments(fields["prefix"], item="prefix"),
        header=fields["header"],
        separator=fields["separator"],
        question_prefix=fields["question_prefix"],
        suffix=_parse_segments(fields["suffix"], item="suffix"),
    )


def _parse_segments(data: object, *, item: str) -> tuple[Segment, ...]:
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise InvalidInput(f"a frame's {item} is a list of segments", item=item)
    return tuple(_parse_segment(segment, item=item) for segment in data)


def _parse_segment(data: object, *, item: str) -> Segment:
    match data:
        case {"text": str(text)} if isinstance(data, Mapping) and len(data) == 1:
            return Text(text)
        case {"control": str(name)} if isinstance(data, Mapping) and len(data) == 1:
            return Control(name)
        case _:
            raise InvalidInput(f'a segment of a frame\'s {item} is {{"text": …}} or {{"control": …}}', item=item)


def known_frames() -> list[str]:
    """Return the names of the packaged frames, sorted."""
    return sorted(entry.name.removesuffix(".json") for entry in _FRAMES.iterdir() if entry.name.endswith(".json"))


@cache
def packaged_frame(name: str) -> Frame:
    """Return a frame that comes with the package.

    Raises:
        InvalidInput: There is none of that name; the message names those there are.
    """
    known = known_frames()
    if name not in known:
        raise InvalidInput(f"unknown frame {name!r}; known: {', '.join(known)}", item="frame")
    return parse_frame((_FRAMES / f"{name}.json").read_bytes())
