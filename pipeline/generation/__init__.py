"""Engines: one client protocol, clients by technology, and the handshake before ids are sent."""

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

__all__ = [
    "MAX_ANSWER_TOKENS",
    "MAX_STOPS",
    "MAX_TEMPERATURE",
    "Completion",
    "Engine",
    "EngineLimits",
    "EngineTimeouts",
    "GenerationClient",
    "GenerationOptions",
    "Handshake",
    "MockClient",
    "OwnClient",
    "Piece",
    "PromptIds",
    "TokenClient",
    "Usage",
]
