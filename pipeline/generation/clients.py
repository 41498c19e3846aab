"""A client of each engine over HTTP, made in one line from a URL or a key; it connects when it is first asked."""

from collections.abc import Callable
from typing import ClassVar
from urllib.parse import urlsplit

from pipeline.errors import ConfigurationError
from pipeline.generation import anthropic
from pipeline.generation.dialects import Dialect
from pipeline.generation.http_client import HttpEngineClient
from pipeline.generation.http_connection import HttpConnection
from pipeline.generation.llamacpp import LlamaCppDialect
from pipeline.generation.mock import HOSTED_ENCODING, hosted_tokenizer
from pipeline.generation.sglang import SglangDialect
from pipeline.generation.timeouts import EngineTimeouts
from pipeline.generation.vllm import VllmDialect

CLAUDE = "claude-sonnet-4-5"
"""Model of `AnthropicClient` where none is named."""


class _TokenInClient(HttpEngineClient):
    """An engine that takes token ids."""

    dialect_of: ClassVar[Callable[..., Dialect]]

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        api_key: str | None = None,
        window_tokens: int | None = None,
        timeouts: EngineTimeouts | None = None,
    ) -> None:
        """Prepare.

        Args:
            url: Base URL, with or without `/v1`.
            model: Its model; may be left out where the engine serves only one.
            api_key: Its key, if it wants one.
            window_tokens: Most tokens of prompt and answer together, where the engine does not say it itself.
            timeouts: Of each call.

        Raises:
            ConfigurationError: The URL is none.
        """
        dialect = self.dialect_of(model=model)
        super().__init__(dialect, _connection(dialect, url, api_key, timeouts), window_tokens=window_tokens)


class VLLMClient(_TokenInClient):
    """vLLM, and every server that takes ids at OpenAI's `/v1/completions`: `VLLMClient("http://127.0.0.1:8000")`."""

    dialect_of = VllmDialect


class SGLangClient(_TokenInClient):
    """SGLang: `SGLangClient("http://127.0.0.1:30000")`."""

    dialect_of = SglangDialect


class LlamaCppClient(_TokenInClient):
    """llama.cpp's server: `LlamaCppClient("http://127.0.0.1:8080")`."""

    dialect_of = LlamaCppDialect


class AnthropicClient(HttpEngineClient):
    """Anthropic's Messages API: `AnthropicClient("sk-ant-…")`. Takes text; token counts are estimates, and say so."""

    def __init__(
        self,
        api_key: str | None = None,
        *,
        model: str = CLAUDE,
        url: str = anthropic.URL,
        window_tokens: int | None = None,
        timeouts: EngineTimeouts | None = None,
    ) -> None:
        """Prepare.

        Args:
            api_key: The key. A URL in its place is taken for `url`, of a service that wants no key.
            model: Name of the model.
            url: Base URL of the API.
            window_tokens: The model's window; the API does not say it.
            timeouts: Of each call.

        Raises:
            ConfigurationError: The URL is none.
        """
        api_key, url = key_and_url(api_key, url)
        dialect = anthropic.AnthropicDialect(model=model, encoding=HOSTED_ENCODING, tokenizer=hosted_tokenizer())
        super().__init__(dialect, _connection(dialect, url, api_key, timeouts), window_tokens=window_tokens)


def key_and_url(api_key: str | None, url: str) -> tuple[str | None, str]:
    """Return a hosted API's key and URL, where a URL may have been given instead of the key."""
    if api_key is not None and api_key.startswith(("http://", "https://")):
        return None, api_key
    return api_key, url


def require_url(url: object) -> str:
    """Return an engine's URL.

    Raises:
        ConfigurationError: It is none; the message does not repeat what might be a key.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url:
        raise ConfigurationError("an engine's URL is like http://127.0.0.1:8000, with http:// or https://")
    return str(url)


def _connection(dialect: Dialect, url: str, api_key: str | None, timeouts: EngineTimeouts | None) -> HttpConnection:
    base_url = require_url(url).rstrip("/").removesuffix("/v1")
    return HttpConnection(base_url, headers=dialect.headers(api_key), timeouts=timeouts or EngineTimeouts())
