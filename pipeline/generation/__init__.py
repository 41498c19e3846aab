"""Engines: one client protocol, clients by technology, and the handshake before ids are sent.

Clients over HTTP are imported when they are asked for: their libraries take up to half a second, and few need all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from pipeline.generation.client import (
    Completion,
    Engine,
    EngineLimits,
    GenerationClient,
    GenerationOptions,
    Piece,
    PromptIds,
    Usage,
)
from pipeline.generation.handshake import Handshake
from pipeline.generation.mock import MockClient
from pipeline.generation.own_client import OwnClient, TokenClient
from pipeline.generation.requests import MAX_ANSWER_TOKENS, MAX_STOPS, MAX_TEMPERATURE
from pipeline.generation.timeouts import EngineTimeouts

if TYPE_CHECKING:
    from pipeline.generation.clients import AnthropicClient, LlamaCppClient, SGLangClient, VLLMClient
    from pipeline.generation.openai_chat import OpenAIClient

__all__ = [
    "MAX_ANSWER_TOKENS",
    "MAX_STOPS",
    "MAX_TEMPERATURE",
    "AnthropicClient",
    "Completion",
    "Engine",
    "EngineLimits",
    "EngineTimeouts",
    "GenerationClient",
    "GenerationOptions",
    "Handshake",
    "LlamaCppClient",
    "MockClient",
    "OpenAIClient",
    "OwnClient",
    "Piece",
    "PromptIds",
    "SGLangClient",
    "TokenClient",
    "Usage",
    "VLLMClient",
]

_LATER: Final = {
    "AnthropicClient": "clients",
    "LlamaCppClient": "clients",
    "OpenAIClient": "openai_chat",
    "SGLangClient": "clients",
    "VLLMClient": "clients",
}
"""File that a name is imported from when it is asked for."""


def __getattr__(name: str) -> object:
    """Import a client when it is asked for."""
    if name in _LATER:
        return getattr(import_module(f"pipeline.generation.{_LATER[name]}"), name)
    raise AttributeError(f"module 'pipeline.generation' has no attribute {name!r}")
