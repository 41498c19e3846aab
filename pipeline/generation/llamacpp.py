"""llama.cpp's server (and xllamacpp's): `/completion` takes a prompt of ids and returns the answer's.

Its `/v1/completions` takes ids too, but never says the answer's. A stream leaves out the ids of characters that are
spread over several tokens; the answer's ids are then unknown, and never wrong.
"""

from typing import Any, Final

from pydantic import Field

from pipeline.errors import Unavailable
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationRequest, Piece, Usage
from pipeline.generation.dialects import Answer, Call, Gathering, StreamReading, parse
from pipeline.generation.refusals import SERVICE, refusal

_REASONS = {"limit": "length", "eos": "stop", "word": "stop"}


class _Error(Answer):
    message: str = ""
    code: int | None = None


class _Timings(Answer):
    cache_n: int | None = None


class _Event(Answer):
    content: str = ""
    tokens: list[int] | None = None
    stop: bool = False
    stop_type: str | None = None
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    truncated: bool = False
    timings: _Timings | None = None
    error: _Error | None = None


class _Meta(Answer):
    n_ctx: int | None = None
    n_vocab: int | None = None


class _Model(Answer):
    meta: _Meta | None = None


class _Models(Answer):
    data: list[_Model] = Field(default_factory=list)


class _Tokens(Answer):
    tokens: list[int]


class LlamaCppDialect:
    """The wire format of llama.cpp. A server has one model, so its name is told and not asked."""

    estimator: Final = None

    def __init__(self, *, model: str | None) -> None:
        self.engine: Final = Engine(kind="llamacpp", model=model, takes="token_ids", tokenizes=True)

    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return a bearer token, if there is one."""
        return {} if api_key is None else {"authorization": f"Bearer {api_key}"}

    def completion(self, request: GenerationRequest, *, stream: bool) -> Call:
        """Return the request for an answer; stop ids are its own business: it knows the model's ends."""
        body: dict[str, Any] = {
            "prompt": request.prompt_token_ids,
            "n_predict": request.max_tokens,
            "stream": stream,
            "return_tokens": True,
            "cache_prompt": True,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = request.stop
        return Call("/completion", body)

    def read_completion(self, body: Any) -> Completion:
        """Return a whole answer."""
        reading = _Reading()
        reading.read(body)
        return reading.finish()

    def reading(self) -> StreamReading:
        """Return a reader for one streamed answer."""
        return _Reading()

    def limits_path(self) -> str | None:
        """Return where models are listed."""
        return "/v1/models"

    def read_limits(self, body: Any) -> EngineLimits:
        """Return window and vocabulary."""
        metas = [model.meta for model in parse(_Models, body).data if model.meta is not None]
        if not metas:
            return EngineLimits()
        return EngineLimits(window_tokens=metas[0].n_ctx, vocabulary_size=metas[0].n_vocab)

    def tokenization(self, text: str, *, special: bool) -> Call:
        """Return the request for a text's ids."""
        return Call("/tokenize", {"content": text, "add_special": False, "parse_special": special})

    def read_tokens(self, body: Any) -> list[int]:
        """Return those ids."""
        return parse(_Tokens, body).tokens


class _Reading:
    def __init__(self) -> None:
        self._gathering = Gathering()
        self._counted = 0

    def read(self, event: Any) -> Piece | None:
        """Return what an event adds."""
        parsed = parse(_Event, event)
        if parsed.error is not None:
            raise refusal(parsed.error.code or 500, parsed.error.message)
        if parsed.truncated:
            raise Unavailable("the engine cut the prompt or answer to its window", service=SERVICE)
        if parsed.stop:
            self._gathering.finish_reason = _REASONS.get(parsed.stop_type or "", parsed.stop_type or "stop")
            self._gathering.usage = Usage(
                prompt_tokens=parsed.tokens_evaluated,
                completion_tokens=parsed.tokens_predicted,
                cached_tokens=None if parsed.timings is None else parsed.timings.cache_n,
            )
        return self._gathering.add(parsed.content, self._ids(parsed))

    def finish(self) -> Completion:
        """Return the whole answer."""
        return self._gathering.whole()

    def _ids(self, event: _Event) -> list[int] | None:
        """Return an event's ids if they are all that were made since the last one."""
        made, self._counted = event.tokens_predicted - self._counted, event.tokens_predicted
        return event.tokens if event.tokens is not None and len(event.tokens) == made else None
