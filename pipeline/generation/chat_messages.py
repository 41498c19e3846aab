"""A prompt as the messages of a chat API: roles come from the frame's control tokens, never from document text.

Three families of frames say roles in their own way; a frame without control tokens is one message of the user. What a
document or question spells stays inside its message, whatever it looks like.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import Control, Segment, Text, TextEncoder, TokenIds, joined_runs
from pipeline.generation.client import GenerationRequest

_HEADERS = {
    "<|im_start|>": "\n",
    "<|start_header_id|>": "<|end_header_id|>",
    "<|start|>": "<|message|>",
}
"""Control that opens a message, and what ends its role: a line feed, or another control."""
_ENDS = {"<|im_end|>", "<|eot_id|>", "<|end|>"}
_IGNORED = {"<|begin_of_text|>", "<|endoftext|>"}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: str
    """`system`, `user` or `assistant`."""
    content: str


class Decoder(TextEncoder, Protocol):
    """A tokenizer that can also turn ids into text."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Return the ids that only a frame may write."""
        ...

    def decode(self, ids: TokenIds) -> str:
        """Return the text of ids."""
        ...


def chat_messages(request: GenerationRequest, decoder: Decoder) -> list[Message]:
    """Return the messages that a request's prompt stands for.

    Args:
        request: Its segments are used where it has some; otherwise its ids are decoded.
        decoder: Of the encoding that the ids belong to.

    Raises:
        InvalidInput: No message can be made of it.
    """
    segments = request.segments or _decoded(request.prompt_token_ids, decoder)
    runs = list(joined_runs(segments))
    if any(isinstance(run, Control) for run in runs):
        messages = list(_framed_messages(runs))
    else:
        messages = [Message("user", "".join(run.text for run in runs if isinstance(run, Text)))]
    kept = [message for message in messages if message.content.strip()]
    if not any(message.role == "user" for message in kept):
        raise InvalidInput("the prompt has no message of the user, which a chat API needs", item="prompt_token_ids")
    return kept


def _decoded(ids: TokenIds, decoder: Decoder) -> tuple[Segment, ...]:
    if not decoder.special_ids.isdisjoint(ids.tolist()):
        raise InvalidInput("ids with control tokens need their segments to become messages", item="prompt_token_ids")
    try:
        return (Text(decoder.decode(ids)),)
    except ExactnessError as error:
        raise InvalidInput(f"the prompt's {error}", item="prompt_token_ids") from error


def _framed_messages(runs: Sequence[Segment]) -> Iterator[Message]:
    place = 0
    while place < len(runs):
        run = runs[place]
        place += 1
        match run:
            case Text(text):
                if text.strip():
                    raise InvalidInput("the frame has text outside its messages, which no chat API takes", item="spec")
            case Control(name) if name in _HEADERS:
                body, place = _body(runs, place)
                yield _message(body, role_end=_HEADERS[name])
            case Control(name) if name not in _IGNORED | _ENDS:
                raise InvalidInput(f"the frame's control token {name} has no meaning for a chat API", item="spec")


def _body(runs: Sequence[Segment], place: int) -> tuple[list[Segment], int]:
    """Return what stands between a message's opening and its end, and where to go on."""
    body: list[Segment] = []
    while place < len(runs):
        run = runs[place]
        if isinstance(run, Control) and (run.name in _ENDS or run.name in _HEADERS):
            break
        body.append(run)
        place += 1
    return body, place


def _message(body: Sequence[Segment], *, role_end: str) -> Message:
    if role_end == "\n":
        text = "".join(run.text for run in body if isinstance(run, Text))
        role, _, content = text.partition("\n")
    else:
        at = next((i for i, run in enumerate(body) if run == Control(role_end)), len(body))
        role = "".join(run.text for run in body[:at] if isinstance(run, Text))
        content = "".join(run.text for run in body[at + 1 :] if isinstance(run, Text)).removeprefix("\n\n")
    known = _ROLES.get(role.strip())
    if known is None:
        raise InvalidInput(f"the frame's role {role.strip()[:40]!r} has no meaning for a chat API", item="spec")
    return Message(known, content)
