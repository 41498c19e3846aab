"""SGLang's own `/generate`, which takes `input_ids`.

A stream repeats the whole answer so far in every event, text and ids, unless the server runs with incremental output:
then events hold what is new. `meta_info.completion_tokens` tells which. A failed request is an event whose
`finish_reason` is an abort with a status.
"""

from typing import Any, Final

from pipeline.errors import ForefillError
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationRequest, Piece, Usage
from pipeline.generation.dialects import Answer, Call, Gathering, StreamReading, parse
from pipeline.generation.refusals import refusal, unreadable
from pipeline.generation.vllm import VllmDialect


class _Finish(Answer):
    type: str
    message: str = ""
    status_code: int | None = None


class _Meta(Answer):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None
    finish_reason: _Finish | str | None = None


class _Error(Answer):
    message: str = ""
    code: int | None = None


class _Event(Answer):
    text: str = ""
    output_ids: list[int] | None = None
    meta_info: _Meta | None = None
    error: _Error | None = None


class SglangDialect:
    """The wire format of SGLang. Models and tokenizing are as vLLM has them."""

    estimator: Final = None

    def __init__(self, *, model: str | None) -> None:
        self.engine: Final = Engine(kind="sglang", model=model, takes="token_ids", tokenizes=True)
        self._openai = VllmDialect(model=model)

    def headers(self, api_key: str | None) -> dict[str, str]:
        """Return a bearer token, if there is one."""
        return self._openai.headers(api_key)

    def completion(self, request: GenerationRequest, *, stream: bool) -> Call:
        """Return the request for an answer."""
        sampling: dict[str, Any] = {"max_new_tokens": request.max_tokens, "n": 1}
        if request.temperature is not None:
            sampling["temperature"] = request.temperature
        if request.stop:
            sampling["stop"] = request.stop
        if request.stop_token_ids:
            sampling["stop_token_ids"] = request.stop_token_ids
        return Call("/generate", {"input_ids": request.prompt_token_ids, "sampling_params": sampling, "stream": stream})

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
        return self._openai.limits_path()

    def read_limits(self, body: Any) -> EngineLimits:
        """Return the model's window."""
        return self._openai.read_limits(body)

    def tokenization(self, text: str, *, special: bool) -> Call:
        """Return the request for a text's ids."""
        return self._openai.tokenization(text, special=special)

    def read_tokens(self, body: Any) -> list[int]:
        """Return those ids."""
        return self._openai.read_tokens(body)


class _Reading:
    def __init__(self) -> None:
        self._gathering = Gathering()
        self._text = ""
        self._ids = 0
        self._repeats: bool | None = None
        """Whether events repeat the answer so far; None until two differ in it."""

    def read(self, event: Any) -> Piece | None:
        """Return what an event adds."""
        parsed = parse(_Event, event)
        meta = parsed.meta_info
        if parsed.error is not None:
            raise refusal(parsed.error.code or 500, parsed.error.message)
        if meta is None:
            raise unreadable()
        self._finish(meta)
        ids = parsed.output_ids
        if self._repeating(parsed):
            new_text = parsed.text[len(self._text) :]
            new_ids = None if ids is None else ids[self._ids :]
        else:
            new_text, new_ids = parsed.text, ids
        self._text += new_text
        self._ids += len(new_ids or ())
        return self._gathering.add(new_text, new_ids)

    def finish(self) -> Completion:
        """Return the whole answer."""
        return self._gathering.whole()

    def _repeating(self, event: _Event) -> bool:
        """Tell by the count of ids whether an event repeats; without ids, by its text."""
        if event.output_ids is None or event.meta_info is None:
            return event.text.startswith(self._text)
        if len(event.output_ids) != event.meta_info.completion_tokens:
            self._repeats = False
        elif self._ids:
            self._repeats = True
        return self._repeats is not False

    def _finish(self, meta: _Meta) -> None:
        reason = meta.finish_reason
        if isinstance(reason, _Finish) and reason.type == "abort":
            raise _aborted(reason)
        if reason is not None:
            self._gathering.finish_reason = reason.type if isinstance(reason, _Finish) else reason
        self._gathering.usage = Usage(
            prompt_tokens=meta.prompt_tokens,
            completion_tokens=meta.completion_tokens,
            cached_tokens=meta.cached_tokens,
        )


def _aborted(reason: _Finish) -> ForefillError:
    return refusal(reason.status_code or 503, reason.message)
