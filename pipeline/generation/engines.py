"""Which engine the settings name, and its client."""

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import SecretStr

from pipeline.errors import ConfigurationError
from pipeline.generation.client import GenerationClient
from pipeline.generation.clients import AnthropicClient, LlamaCppClient, SGLangClient, VLLMClient
from pipeline.generation.mock import MockClient
from pipeline.generation.timeouts import EngineTimeouts
from pipeline.settings import Settings

_TOKEN_IN: Mapping[str, Callable[..., GenerationClient]] = {
    "vllm": VLLMClient,
    "sglang": SGLangClient,
    "llamacpp": LlamaCppClient,
}


def open_engine(settings: Settings) -> GenerationClient | None:
    """Build the client of the engine that the settings name, None if they name none; nothing is connected yet.

    Raises:
        ConfigurationError: A setting that this kind of engine needs is missing.
    """
    match settings.engine_kind:
        case None:
            if settings.engine_url is not None:
                raise ConfigurationError("FOREFILL_ENGINE_URL needs FOREFILL_ENGINE_KIND: vllm, sglang, llamacpp, …")
            return None
        case "mock":
            return MockClient(window_tokens=settings.engine_window_tokens)
        case "vllm" | "sglang" | "llamacpp" as kind:
            return _TOKEN_IN[kind](_url(settings), model=settings.model, **_options(settings))
        case "openai":
            # The client library takes half a second to import, which every command would pay for.
            from pipeline.generation.openai_chat import OpenAIClient  # noqa: PLC0415  # see above

            return OpenAIClient(model=_model(settings), **_given_url(settings), **_options(settings))
        case "anthropic":
            return AnthropicClient(model=_model(settings), **_given_url(settings), **_options(settings))


def engine_timeouts(settings: Settings) -> EngineTimeouts:
    """Return the configured times."""
    return EngineTimeouts(
        connect_s=settings.engine_connect_timeout_s,
        first_token_s=settings.engine_first_token_timeout_s,
        between_tokens_s=settings.engine_between_tokens_timeout_s,
        total_s=settings.engine_total_timeout_s,
    )


def _options(settings: Settings) -> dict[str, Any]:
    return {
        "api_key": _key(settings.engine_api_key),
        "window_tokens": settings.engine_window_tokens,
        "timeouts": engine_timeouts(settings),
    }


def _given_url(settings: Settings) -> dict[str, Any]:
    return {} if settings.engine_url is None else {"url": str(settings.engine_url)}


def _url(settings: Settings) -> str:
    if settings.engine_url is None:
        raise ConfigurationError(f"FOREFILL_ENGINE_KIND={settings.engine_kind} needs FOREFILL_ENGINE_URL")
    return str(settings.engine_url)


def _model(settings: Settings) -> str:
    if settings.model is None:
        raise ConfigurationError(f"FOREFILL_ENGINE_KIND={settings.engine_kind} needs FOREFILL_MODEL")
    return settings.model


def _key(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
