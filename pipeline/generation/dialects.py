"""What a wire format has to say about itself. A dialect is pure: it makes requests and reads answers, never sends."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.framing import TextEncoder
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationRequest, Piece, Usage
from pipeline.generation.event_stream import CharacterJoiner
from pipeline.generation.refusals import broken_off, unreadable

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Call:
    """One POST."""

    path: str
    body: Mapping[str, Any]


class StreamReading(Protocol):
    """Reads the events of one streamed answer."""

    def read(self, event: Any) -> Piece | None:
        """Return what an event adds; None if nothing.

        Raises:
            InvalidInput: The event says that the request is refused.
            Unavailable: It says that the engine failed, or it cannot be read.
        """
        ...

    def finish(self) -> Completion:
        """Return the whole answer after the last event.

        Raises:
            Unavailable: The stream ended before its answer did.
        """
        ...


class Dialect(Protocol):
    """One engine's wire format."""

    @property
    def engine(self) -> Engine:
        """Return what answers."""
        ...

    @property
    def estimator(self) -> TextEncoder | None:
        """Return what counts tokens for an engine without a tokenizer; None if the engine has one."""
        ...

    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return what every request carries."""
        ...

    def completion(self, request: GenerationRequest, *, stream: bool) -> Call:
        """Return the request for an answer."""
        ...

    def read_completion(self, body: Any) -> Completion:
        """Return a whole answer; raises as `StreamReading.read`."""
        ...

    def reading(self) -> StreamReading:
        """Return a reader for one streamed answer."""
        ...

    def limits_path(self) -> str | None:
        """Return where the engine describes its models; None if it does not."""
        ...

    def read_limits(self, body: Any) -> EngineLimits:
        """Return what it says there; what it does not say is unknown."""
        ...

    def tokenization(self, text: str, *, special: bool) -> Call:
        """Return the request for a text's ids."""
        ...

    def read_tokens(self, body: Any) -> list[int]:
        """Return those ids."""
        ...


class Answer(BaseModel):
    """Base of what is read from engines: types are strict, unknown fields are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


def parse(model: type[M], body: Any) -> M:
    """Return an answer as a model.

    Raises:
        Unavailable: It is something else.
    """
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise unreadable() from error


class Gathering:
    """The answer so far, from pieces in their order."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._ids: list[int] | None = []
        self._joiner = CharacterJoiner()
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self.prompt_token_ids: tuple[int, ...] | None = None

    def add(self, text: str, token_ids: list[int] | None) -> Piece | None:
        """Add what an event brings; return it as a piece, None if it is nothing."""
        text = self._joiner.join(text)
        self._texts.append(text)
        if token_ids is None:
            if text:
                self._ids = None  # some are unknown from here
        elif self._ids is not None:
            self._ids += token_ids
        if not text and not token_ids:
            return None
        return Piece(text=text, token_ids=None if token_ids is None else tuple(token_ids))

    def whole(self) -> Completion:
        """Return the answer.

        Raises:
            Unavailable: It never said that it is finished.
        """
        if self.finish_reason is None:
            raise broken_off()
        ids = self._ids
        if self.usage is None:
            raise unreadable("lacks its usage")
        if ids is not None and len(ids) != self.usage.completion_tokens:
            ids = None  # the engine left some out: better none than wrong ones
        return Completion(
            text="".join(self._texts) + self._joiner.rest(),
            finish_reason=self.finish_reason,
            usage=self.usage,
            token_ids=None if ids is None else tuple(ids),
            prompt_token_ids=self.prompt_token_ids,
        )
