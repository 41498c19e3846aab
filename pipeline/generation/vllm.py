"""vLLM's fields on OpenAI's `/v1/completions`, and of every server that takes ids there.

`return_token_ids` brings back the prompt's ids and the answer's; a server that does not know it leaves them out. Usage
says `cached_tokens` only under `--enable-prompt-tokens-details`. Errors of a running stream are events under 200.
"""

from typing import Any, Final

from pydantic import Field

from pipeline.errors import Unavailable
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationRequest, Piece, Usage
from pipeline.generation.dialects import Answer, Call, Gathering, StreamReading, parse
from pipeline.generation.event_stream import whole
from pipeline.generation.refusals import SERVICE, refusal, unreadable


class _Details(Answer):
    cached_tokens: int | None = None


class _Usage(Answer):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None

    def to_usage(self) -> Usage:
        details = self.prompt_tokens_details
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=None if details is None else details.cached_tokens,
        )


class _Choice(Answer):
    text: str = ""
    finish_reason: str | None = None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Error(Answer):
    message: str = ""
    code: int | str | None = None


class _Event(Answer):
    choices: list[_Choice] = Field(default_factory=list)
    usage: _Usage | None = None
    error: _Error | None = None


class _Model(Answer):
    id: str
    max_model_len: int | None = None


class _Models(Answer):
    data: list[_Model]


class _Tokens(Answer):
    tokens: list[int]


class VllmDialect:
    """The wire format of vLLM."""

    estimator: Final = None

    def __init__(self, *, model: str | None) -> None:
        self.engine: Final = Engine(kind="vllm", model=model, takes="token_ids", tokenizes=True)

    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return a bearer token, if there is one."""
        return {} if api_key is None else {"authorization": f"Bearer {api_key}"}

    def completion(self, request: GenerationRequest, *, stream: bool) -> Call:
        """Return the request for an answer."""
        body: dict[str, Any] = {
            **self._model(),
            "prompt": request.prompt_token_ids,
            "max_tokens": request.max_tokens,
            "n": 1,
            "stream": stream,
            "return_token_ids": True,
        }
        if request.temperature is not None:
            body["temperature"] = request.temperature
        if request.stop:
            body["stop"] = request.stop
        if request.stop_token_ids:
            body["stop_token_ids"] = request.stop_token_ids
        if stream:
            body["stream_options"] = {"include_usage": True}
        return Call("/v1/completions", body)

    def read_completion(self, body: Any) -> Completion:
        """Return a whole answer."""
        event = parse(_Event, body)
        _raise_for(event.error)
        choice = event.choices[0] if len(event.choices) == 1 else None
        if choice is None or choice.finish_reason is None or event.usage is None:
            raise unreadable("holds no finished text")
        return Completion(
            text=whole(choice.text),
            finish_reason=choice.finish_reason,
            usage=event.usage.to_usage(),
            token_ids=_tuple(choice.token_ids),
            prompt_token_ids=_tuple(choice.prompt_token_ids),
        )

    def reading(self) -> StreamReading:
        """Return a reader for one streamed answer."""
        return _Reading()

    def limits_path(self) -> str | None:
        """Return where models are listed."""
        return "/v1/models"

    def read_limits(self, body: Any) -> EngineLimits:
        """Return the model's window.

        Raises:
            Unavailable: The configured model is not served.
        """
        models = parse(_Models, body).data
        wanted = self.engine.model
        served = [each for each in models if wanted in (None, each.id)]
        if not served:
            names = ", ".join(each.id for each in models[:5])
            raise Unavailable(
                f"the engine does not serve {wanted!r} but {names or 'nothing'}: set FOREFILL_MODEL",
                service=SERVICE,
                retry_after_s=60.0,
            )
        return EngineLimits(window_tokens=served[0].max_model_len)

    def tokenization(self, text: str, *, special: bool) -> Call:  # noqa: ARG002  # names of control tokens always are ids here
        """Return the request for a text's ids."""
        return Call("/tokenize", {**self._model(), "prompt": text, "add_special_tokens": False})

    def read_tokens(self, body: Any) -> list[int]:
        """Return those ids."""
        return parse(_Tokens, body).tokens

    def _model(self) -> dict[str, str]:
        return {} if self.engine.model is None else {"model": self.engine.model}


class _Reading:
    def __init__(self) -> None:
        self._gathering = Gathering()

    def read(self, event: Any) -> Piece | None:
        """Return what an event adds."""
        parsed = parse(_Event, event)
        _raise_for(parsed.error)
        if parsed.usage is not None:
            self._gathering.usage = parsed.usage.to_usage()
        if not parsed.choices:
            return None
        choice = parsed.choices[0]
        if choice.prompt_token_ids is not None:
            self._gathering.prompt_token_ids = tuple(choice.prompt_token_ids)
        self._gathering.finish_reason = choice.finish_reason or self._gathering.finish_reason
        return self._gathering.add(choice.text, choice.token_ids)

    def finish(self) -> Completion:
        """Return the whole answer."""
        return self._gathering.whole()


def _tuple(ids: list[int] | None) -> tuple[int, ...] | None:
    return None if ids is None else tuple(ids)


def _raise_for(error: _Error | None) -> None:
    if error is None:
        return
    status = error.code if isinstance(error.code, int) else 500
    raise refusal(status, error.message)
