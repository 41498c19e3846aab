"""Anthropic's Messages API: takes text, and publishes no tokenizer.

Token counts here are estimates with an OpenAI encoding, which `Engine` says; the API's own usage is exact.
"""

from typing import Any, Final

from pydantic import Field

from pipeline.errors import ForefillError, InvalidInput, Unavailable
from pipeline.generation.chat_messages import Decoder, chat_messages
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationRequest, Piece, Usage
from pipeline.generation.dialects import Answer, Call, Gathering, StreamReading, parse
from pipeline.generation.refusals import SERVICE, refusal

URL = "https://api.anthropic.com"
VERSION = "2023-06-01"
"""Of the wire format."""
MAX_TEMPERATURE = 1.0

_REASONS = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "overloaded_error": 529,
}
"""What the types of error events mean: inside a stream there are no statuses."""


class _Usage(Answer):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Block(Answer):
    type: str = ""
    text: str = ""


class _Error(Answer):
    type: str = ""
    message: str = ""


class _Message(Answer):
    content: list[_Block] = Field(default_factory=list)
    stop_reason: str | None = None
    usage: _Usage | None = None
    error: _Error | None = None


class _Delta(Answer):
    type: str = ""
    text: str = ""
    stop_reason: str | None = None


class _Event(Answer):
    type: str
    message: _Message | None = None
    delta: _Delta | None = None
    usage: _Usage | None = None
    error: _Error | None = None


class AnthropicDialect:
    """The wire format of the Messages API."""

    def __init__(self, *, model: str, encoding: str, tokenizer: Decoder) -> None:
        self.engine: Final = Engine(
            kind="anthropic", model=model, takes="text", tokenizes=False, estimated_with=encoding
        )
        self.estimator: Final = tokenizer

    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return version and key."""
        return {"anthropic-version": VERSION, **({} if api_key is None else {"x-api-key": api_key})}

    def completion(self, request: GenerationRequest, *, stream: bool) -> Call:
        """Return the request for an answer.

        Raises:
            InvalidInput: The temperature is over 1, or the prompt has no text.
        """
        if request.temperature is not None and request.temperature > MAX_TEMPERATURE:
            raise InvalidInput("temperature must be at most 1 for Anthropic", item="temperature")
        messages = chat_messages(request, self.estimator)
        system = "\n\n".join(each.content for each in messages if each.role == "system")
        body: dict[str, Any] = {
            "model": self.engine.model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": each.role, "content": each.content} for each in messages if each.role != "system"],
            "stream": stream,
        }
        if system:
            body["system"] = system
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop_sequences"] = request.stop
        return Call("/v1/messages", body)

    def read_completion(self, body: Any) -> Completion:
        """Return a whole answer."""
        reading = _Reading()
        reading.take_message(parse(_Message, body))
        return reading.finish()

    def reading(self) -> StreamReading:
        """Return a reader for one streamed answer."""
        return _Reading()

    def limits_path(self) -> str | None:
        """Return None: windows are documented, not answered."""
        return None

    def read_limits(self, body: Any) -> EngineLimits:  # noqa: ARG002  # never called: see above
        """Return nothing known."""
        return EngineLimits()

    def tokenization(self, text: str, *, special: bool) -> Call:  # noqa: ARG002  # there is nobody to ask
        """Refuse: there is no such request."""
        raise Unavailable("Anthropic publishes no tokenizer", service=SERVICE)

    def read_tokens(self, body: Any) -> list[int]:  # noqa: ARG002  # nobody was asked
        """Refuse: there is no such answer."""
        raise Unavailable("Anthropic publishes no tokenizer", service=SERVICE)


class _Reading:
    def __init__(self) -> None:
        self._gathering = Gathering()
        self._usage = _Usage()

    def read(self, event: Any) -> Piece | None:
        """Return what an event adds."""
        match parse(_Event, event):
            case _Event(type="error", error=error):
                raise _refused(error or _Error())
            case _Event(type="message_start", message=_Message() as message):
                self._count(message.usage)
            case _Event(type="content_block_delta", delta=_Delta(type="text_delta") as delta):
                return self._gathering.add(delta.text, None)
            case _Event(type="message_delta", delta=_Delta(stop_reason=str(reason)), usage=usage):
                self._gathering.finish_reason = _REASONS.get(reason, reason)
                self._count(usage)
            case _:
                pass  # pings, ends of blocks, and what is not text
        return None

    def take_message(self, message: _Message) -> None:
        """Take a whole answer at once."""
        if message.error is not None:
            raise _refused(message.error)
        self._count(message.usage)
        self._gathering.add("".join(each.text for each in message.content if each.type == "text"), None)
        if message.stop_reason is not None:
            self._gathering.finish_reason = _REASONS.get(message.stop_reason, message.stop_reason)

    def finish(self) -> Completion:
        """Return the whole answer."""
        usage = self._usage
        cached = usage.cache_read_input_tokens
        self._gathering.usage = Usage(
            prompt_tokens=(usage.input_tokens or 0) + (cached or 0) + (usage.cache_creation_input_tokens or 0),
            completion_tokens=usage.output_tokens or 0,
            cached_tokens=cached,
        )
        return self._gathering.whole()

    def _count(self, usage: _Usage | None) -> None:
        if usage is not None:
            self._usage = self._usage.model_copy(update=usage.model_dump(exclude_none=True))


def _refused(error: _Error) -> ForefillError:
    return refusal(_STATUSES.get(error.type, 500), error.message)
