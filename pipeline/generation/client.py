"""What every engine client offers, and the values it takes and gives.

Prompts are token ids everywhere. An engine that takes ids gets exactly those; a hosted API that only takes text gets
the text they stand for, and its `Engine` says so.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, Required, TypeAlias, TypedDict, Unpack, runtime_checkable

from pipeline.framing import Segment, TokenIds

PromptIds: TypeAlias = Sequence[int] | TokenIds
"""Token ids of a prompt: whole numbers only; `"2"`, `2.0` and `true` are refused, since engines coerce them to ids."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What answers, as told to callers."""

    kind: str
    """`vllm`, `sglang`, `llamacpp`, `openai`, `anthropic`, `mock`, or `custom` for a caller's own client."""
    model: str | None
    """Its model, None where the engine has only one and was not asked for its name."""
    takes: Literal["token_ids", "text"]
    """What a prompt is sent as."""
    tokenizes: bool
    """Whether `tokenize` is the engine's own, so that a handshake can compare its ids."""
    estimated_with: str | None = None
    """Encoding that token counts are estimated with, where the model's own tokenizer cannot be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine says about itself; None where it does not."""

    window_tokens: int | None = None
    """Most tokens of prompt and answer together."""
    vocabulary_size: int | None = None
    """Number that every id is below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int | None = None
    """Prompt tokens found in the engine's prefix cache; None where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """The next part of an answer while it is made."""

    text: str
    """Whole characters only; may be empty."""
    token_ids: tuple[int, ...] | None = None
    """Its ids; None where the engine does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole answer."""

    text: str
    finish_reason: str
    """`stop` (by itself or at a stop), `length` (at `max_tokens`), or the engine's own word."""
    usage: Usage
    token_ids: tuple[int, ...] | None = None
    """Its ids; None where the engine does not say, or not all of them."""
    prompt_token_ids: tuple[int, ...] | None = None
    """The prompt as the engine says it read it; None where it does not say."""


class GenerationOptions(TypedDict, total=False):
    """How an answer is made; keyword arguments."""

    max_tokens: Required[int]
    """Most tokens of the answer; always sent, as engines have small defaults."""
    temperature: float | None
    """0 is deterministic; None leaves it to the engine."""
    stop: Sequence[str]
    """Texts that end the answer; they are not part of it."""
    stop_token_ids: Sequence[int]
    """Ids that end the answer, where the engine takes some."""
    segments: Sequence[Segment]
    """What the ids stand for. APIs that take text make messages of them; without, the ids are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GenerationRequest:
    """One checked request; made by `check_request`."""

    prompt_token_ids: TokenIds
    max_tokens: int
    temperature: float | None = None
    """None leaves it to the engine."""
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    segments: tuple[Segment, ...] = field(default=())
    """What the ids stand for, for APIs that take text; may be empty."""


@runtime_checkable
class GenerationClient(Protocol):
    """One engine. For one event loop; closed by its owner."""

    @property
    def engine(self) -> Engine:
        """Return what answers."""
        ...

    async def limits(self) -> EngineLimits:
        """Return what the engine says about its window and vocabulary.

        Raises:
            Unavailable: It did not answer.
        """
        ...

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids that the engine's own tokenizer gives a text; an estimate where `Engine` says so.

        Args:
            text: Ordinary text.
            special: Whether names of control tokens in it become their ids. vLLM and SGLang always do that.

        Raises:
            Unavailable: The engine did not answer, or offers no tokenizer.
        """
        ...

    async def generate_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Return the answer to a prompt.

        Cancelling the call closes the connection, which ends the engine's work.

        Args:
            prompt_token_ids: The whole prompt, question and all.
            options: See `GenerationOptions`.

        Raises:
            InvalidInput: An id, a parameter or the length is out of range, here or for the engine.
            Unavailable: The engine cannot be reached, is too slow, failed, or its answer broke off.
        """
        ...

    def stream_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Piece | Completion]:
        """Yield the answer piece by piece and at last as a whole; arguments and errors as above.

        Closing the generator closes the connection, which ends the engine's work. Nothing is ever sent twice.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...
