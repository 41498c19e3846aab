"""OpenAI's hosted chat API, and services that speak it: they take text, so ids become messages again.

The client library's errors become Forefill's by one table (`_translated`). It is told not to retry: somebody is
waiting, and an answer that has begun must not begin again.
"""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, Final, Unpack
from urllib.parse import urlsplit

import httpx
import openai
from pydantic import Field

from pipeline.errors import ForefillError, Unavailable
from pipeline.generation.chat_messages import chat_messages
from pipeline.generation.client import (
    Completion,
    Engine,
    EngineLimits,
    GenerationOptions,
    GenerationRequest,
    Piece,
    PromptIds,
    Usage,
)
from pipeline.generation.clients import key_and_url, require_url
from pipeline.generation.dialects import Answer, Gathering, parse
from pipeline.generation.http_connection import engine_transport
from pipeline.generation.mock import HOSTED_ENCODING, hosted_tokenizer
from pipeline.generation.refusals import SERVICE, refusal, unreadable
from pipeline.generation.requests import check_limits, check_request
from pipeline.generation.timeouts import EngineTimeouts, paced, within_total

URL = "https://api.openai.com/v1"
GPT = "gpt-4o-mini"
"""Model of `OpenAIClient` where none is named."""

_KEPT_CONNECTIONS = 32


class _Details(Answer):
    cached_tokens: int | None = None


class _Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    prompt_tokens_details: _Details | None = None

    def to_usage(self) -> Usage:
        details = self.prompt_tokens_details
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=None if details is None else details.cached_tokens,
        )


class _Text(Answer):
    content: str | None = None


class _Choice(Answer):
    message: _Text | None = None
    delta: _Text | None = None
    finish_reason: str | None = None


class _Answer(Answer):
    """A whole answer or one event; parsed here, as the client library takes any JSON for an answer."""

    choices: list[_Choice] = Field(default_factory=list)
    usage: _Usage | None = None


class OpenAIClient:
    """OpenAI's chat API and services that speak it: `OpenAIClient("sk-…")`. Takes text; token counts are estimates."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str = GPT,
        url: str = URL,
        window_tokens: int | None = None,
        timeouts: EngineTimeouts | None = None,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            api_key: Sent as a bearer token. A URL in its place is taken for `url`, of a service that wants no key.
            model: Name of the model.
            url: Base URL, with or without `/v1`.
            window_tokens: The model's window; the API does not say it.
            timeouts: Of each call.

        Raises:
            ConfigurationError: The URL is none.
        """
        api_key, url = key_and_url(api_key, url)
        base_url = require_url(url).rstrip("/")
        self.engine: Final = Engine(
            kind="openai", model=model, takes="text", tokenizes=False, estimated_with=HOSTED_ENCODING
        )
        self._model = model
        self._tokenizer = hosted_tokenizer()
        self._timeouts = timeouts or EngineTimeouts()
        self._known_limits = EngineLimits(window_tokens=window_tokens)
        self._client = openai.AsyncOpenAI(
            base_url=base_url if urlsplit(base_url).path else f"{base_url}/v1",
            api_key=api_key or "none",
            timeout=openai.Timeout(None, connect=self._timeouts.connect_s),  # the rest is paced below
            max_retries=0,
            http_client=httpx.AsyncClient(  # type: ignore[arg-type]  # the library takes both generations of httpx
                transport=engine_transport(base_url, kept_connections=_KEPT_CONNECTIONS)
            ),
        )

    def __repr__(self) -> str:
        return f"OpenAIClient({self._model}, {self._client.base_url.host})"

    async def limits(self) -> EngineLimits:
        """Return the configured window; see `GenerationClient`."""
        return self._known_limits

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:  # noqa: ARG002  # text stays text here
        """Return the ids that the configured encoding gives a text: an estimate."""
        ids: list[int] = self._tokenizer.encode(text).tolist()
        return ids

    async def generate_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Return the answer to a prompt; see `GenerationClient`."""
        request = check_request(prompt_token_ids, **options)
        check_limits(request, self._known_limits)
        body = await within_total(self._whole(self._arguments(request)), self._timeouts)
        answer = parse(_Answer, body)
        choice = answer.choices[0] if len(answer.choices) == 1 else None
        if choice is None or choice.message is None or choice.finish_reason is None or answer.usage is None:
            raise unreadable("holds no finished text")
        return Completion(
            text=choice.message.content or "", finish_reason=choice.finish_reason, usage=answer.usage.to_usage()
        )

    async def stream_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Piece | Completion]:
        """Yield the answer piece by piece; see `GenerationClient`."""
        request = check_request(prompt_token_ids, **options)
        check_limits(request, self._known_limits)
        gathering = Gathering()
        async with aclosing(paced(self._events(self._arguments(request)), self._timeouts)) as events:
            async for event in events:
                answer = parse(_Answer, event)
                if answer.usage is not None:
                    gathering.usage = answer.usage.to_usage()
                for choice in answer.choices[:1]:
                    gathering.finish_reason = choice.finish_reason or gathering.finish_reason
                    piece = gathering.add((choice.delta and choice.delta.content) or "", None)
                    if piece is not None:
                        yield piece
        yield gathering.whole()

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.close()

    def _arguments(self, request: GenerationRequest) -> dict[str, Any]:
        """Return the request; stop ids are not sent, since the API knows the model's ends."""
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": each.role, "content": each.content} for each in chat_messages(request, self._tokenizer)
            ],
            "max_completion_tokens": request.max_tokens,
        }
        if request.temperature is not None:
            arguments["temperature"] = request.temperature
        if request.stop:
            arguments["stop"] = list(request.stop)
        return arguments

    async def _whole(self, arguments: dict[str, Any]) -> Any:
        with _translating():
            completion = await self._client.chat.completions.create(**arguments)
            return completion.model_dump(warnings=False)  # other types are refused by `parse`

    async def _events(self, arguments: dict[str, Any]) -> AsyncGenerator[Any]:
        with _translating():
            stream = await self._client.chat.completions.create(
                **arguments, stream=True, stream_options={"include_usage": True}
            )
            async with stream:
                async for event in stream:
                    yield event.model_dump(warnings=False)


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except openai.OpenAIError as error:
        raise _translated(error) from error
    except (AttributeError, TypeError, ValueError, LookupError, RecursionError) as error:
        # What the library's lenient models make of an answer that is none: a text, a list, broken JSON.
        raise unreadable() from error


def _translated(error: openai.OpenAIError) -> ForefillError:
    """Give an error of the client library its place in Forefill's tree."""
    match error:
        case openai.APIStatusError(status_code=status):
            return refusal(status, _message(error), retry_after=error.response.headers.get("retry-after"))
        case openai.APITimeoutError():
            return Unavailable("the engine did not accept a connection in time", service=SERVICE)
        case openai.APIConnectionError():
            return Unavailable("the engine cannot be reached, or the connection broke", service=SERVICE)
        case openai.APIError(body=body):  # an error event inside a stream that began with 200
            code = body.get("code") if isinstance(body, dict) else None
            return refusal(code if isinstance(code, int) else 500, error.message)
        case _:
            return unreadable(f"failed ({type(error).__name__})")


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    return str(body["message"]) if isinstance(body, dict) and isinstance(body.get("message"), str) else ""
