"""Which engine the settings name, and its client."""

from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from pydantic import SecretStr

from pipeline.errors import ConfigurationError
from pipeline.generation import anthropic
from pipeline.generation.client import GenerationClient
from pipeline.generation.dialects import Dialect
from pipeline.generation.http_client import HttpEngineClient
from pipeline.generation.http_connection import HttpConnection
from pipeline.generation.llamacpp import LlamaCppDialect
from pipeline.generation.mock import MockClient
from pipeline.generation.sglang import SglangDialect
from pipeline.generation.timeouts import EngineTimeouts
from pipeline.generation.vllm import VllmDialect
from pipeline.settings import Settings
from pipeline.tokenizers import load_spec

_TOKEN_IN: Mapping[str, Callable[..., Dialect]] = {
    "vllm": VllmDialect,
    "sglang": SglangDialect,
    "llamacpp": LlamaCppDialect,
}

HOSTED_ENCODING = "o200k_base"
"""Encoding of ids given to a hosted API without their text, and of its estimates."""


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
            return MockClient(
                lambda: load_spec(f"{HOSTED_ENCODING}/plain").tokenizer, window_tokens=settings.engine_window_tokens
            )
        case "vllm" | "sglang" | "llamacpp" as kind:
            return _over_http(settings, _TOKEN_IN[kind](model=settings.model))
        case "openai":
            return _openai(settings)
        case "anthropic":
            return _anthropic(settings)


def engine_timeouts(settings: Settings) -> EngineTimeouts:
    """Return the configured times."""
    return EngineTimeouts(
        connect_s=settings.engine_connect_timeout_s,
        first_token_s=settings.engine_first_token_timeout_s,
        between_tokens_s=settings.engine_between_tokens_timeout_s,
        total_s=settings.engine_total_timeout_s,
    )


def _over_http(settings: Settings, dialect: Dialect, *, url: str | None = None) -> HttpEngineClient:
    base_url = url or _url(settings)
    connection = HttpConnection(
        base_url.rstrip("/").removesuffix("/v1"),
        headers=dialect.headers(_key(settings.engine_api_key)),
        timeouts=engine_timeouts(settings),
    )
    return HttpEngineClient(dialect, connection, window_tokens=settings.engine_window_tokens)


def _openai(settings: Settings) -> GenerationClient:
    # The client library takes half a second to import, which every command would pay for.
    from pipeline.generation.openai_chat import URL, OpenAIChatClient  # noqa: PLC0415  # see above

    url = str(settings.engine_url or URL).rstrip("/")
    return OpenAIChatClient(
        base_url=url if urlsplit(url).path else f"{url}/v1",
        api_key=_key(settings.engine_api_key),
        model=_model(settings),
        encoding=HOSTED_ENCODING,
        tokenizer=load_spec(f"{HOSTED_ENCODING}/plain").tokenizer,
        timeouts=engine_timeouts(settings),
        window_tokens=settings.engine_window_tokens,
    )


def _anthropic(settings: Settings) -> GenerationClient:

    tokenizer = load_spec(f"{HOSTED_ENCODING}/plain").tokenizer
    dialect = anthropic.AnthropicDialect(model=_model(settings), encoding=HOSTED_ENCODING, tokenizer=tokenizer)
    return _over_http(settings, dialect, url=str(settings.engine_url or anthropic.URL))


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
