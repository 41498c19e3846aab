"""A model's own chat template beside a frame: what to render, and where the rendering departs from the frame.

Everything here is pure. A template is a program and runs elsewhere, in a sandbox; what it renders comes back as text in
which control tokens are spelled out, as an engine would read it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import orjson

from pipeline.errors import InvalidInput, TooLarge
from pipeline.framing.frame import Frame
from pipeline.framing.rendering import prompt_segments
from pipeline.framing.segments import Control, Segment, Text, joined_runs

MAX_TEMPLATE_BYTES = 64 * 1024
"""Bytes of a template, and of what it renders."""

MAX_CONFIG_BYTES = 8 * 1024 * 1024
"""Bytes of a `tokenizer_config.json` that holds a template."""

_MAX_CONVERSATIONS = 64
_SHOWN_CHARACTERS = 60

Message: TypeAlias = dict[str, str]
"""`role` and `content`."""

Conversation: TypeAlias = list[Message]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A Jinja template that turns messages into a prompt."""

    source: str
    tokens: Mapping[str, str] | None
    """What the model's configuration says of `bos_token` and its like; None where only the template was given."""


def parse_chat_template(data: bytes) -> ChatTemplate:
    """Read a template, alone or in a `tokenizer_config.json`.

    Raises:
        TooLarge: It is over `MAX_TEMPLATE_BYTES`, or the configuration over `MAX_CONFIG_BYTES`.
        InvalidInput: It is no text, or a configuration without a template.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise TooLarge(f"the chat template is over {MAX_CONFIG_BYTES:,} bytes", item="chat_template")
    template = _configured(data) or ChatTemplate(source=_decoded(data), tokens=None)
    if len(template.source.encode()) > MAX_TEMPLATE_BYTES:
        raise TooLarge(f"the chat template is over {MAX_TEMPLATE_BYTES:,} bytes", item="chat_template")
    if not template.source.strip():
        raise InvalidInput("the chat template is empty", item="chat_template")
    return template


def conversations(frame: Frame, passages: Sequence[str], question: str) -> Iterator[Conversation]:
    """Yield the messages that a frame's prompt may stand for.

    A frame does not say where the role's name ends and a message begins, and templates put words of their own before
    one. So a system message may be any text of the prefix from a line's beginning to the next control token, or none;
    the user's may begin at any line of the last text before the passages.
    """
    runs = list(joined_runs(frame.prefix))
    opening = ""
    if runs and isinstance(last := runs[-1], Text):
        opening = last.text
        runs.pop()
    body = _user_text(frame, passages, question)
    systems = [text for run in runs if isinstance(run, Text) for text in _from_each_line(run.text) if text.strip()]
    every = (
        [*([] if system is None else [_message("system", system)]), _message("user", user + body)]
        for system in (*systems, None)
        for user in _from_each_line(opening)
    )
    yield from islice(every, _MAX_CONVERSATIONS)


def template_segments(rendered: str, *, controls: Sequence[str]) -> list[Segment]:
    """Return what an engine reads in a rendered template: every control token that is spelled becomes one."""
    if not controls:
        return [Text(rendered)]
    longest_first = sorted(controls, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", rendered)
    return [Control(part) if place % 2 else Text(part) for place, part in enumerate(parts) if part]


def spelled(segments: Sequence[Segment]) -> str:
    """Return a prompt with its control tokens spelled out."""
    return "".join(segment.name if isinstance(segment, Control) else segment.text for segment in segments)


def agreement(rendered: str, expected: str) -> int:
    """Return how many characters two prompts begin with in common."""
    pairs = enumerate(zip(rendered, expected, strict=False))
    return next((place for place, (one, other) in pairs if one != other), min(len(rendered), len(expected)))


def difference(rendered: str, expected: str, *, controls: Sequence[str]) -> str:
    """Return a sentence on where a rendering departs from a frame's prompt; it cuts no control token in two."""
    place, begin = agreement(rendered, expected), 0
    for segment in template_segments(expected, controls=controls):
        end = begin + len(segment.name if isinstance(segment, Control) else segment.text)
        if isinstance(segment, Control) and begin < place < end:
            place = begin
        begin = end
    before = expected[max(0, place - _SHOWN_CHARACTERS) : place]
    return f"after {before!r} the template writes {_shown(rendered[place:])}, the frame {_shown(expected[place:])}"


def _shown(rest: str) -> str:
    return repr(rest[:_SHOWN_CHARACTERS]) if rest else "nothing more"


def _user_text(frame: Frame, passages: Sequence[str], question: str) -> str:
    """Return all text from the first header to the first control token of the suffix."""
    segments = list(joined_runs(prompt_segments(frame, passages, question)[len(frame.prefix) :]))
    return segments[0].text if segments and isinstance(segments[0], Text) else ""


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _from_each_line(text: str) -> list[str]:
    """Return the text from the beginning of each of its lines on; after a line feed also the nothing behind it."""
    return [text[start:] for start in (0, *(match.end() for match in re.finditer("\n", text)))]


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"the chat template is no UTF-8: {error}", item="chat_template") from error


def _configured(data: bytes) -> ChatTemplate | None:
    """Return the template of a configuration, or None if this is no JSON object: a template alone is none."""
    try:
        fields: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(fields, dict):
        return None
    template = fields.get("chat_template")
    if isinstance(template, list):  # several by name
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        raise InvalidInput("this tokenizer_config.json has no chat_template", item="chat_template")
    tokens = {name: _content(value) for name, value in fields.items() if name.endswith("_token")}
    return ChatTemplate(source=template, tokens={name: text for name, text in tokens.items() if text is not None})


def _content(token: Any) -> str | None:
    """Return a token's text, which some configurations write as an object."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None
