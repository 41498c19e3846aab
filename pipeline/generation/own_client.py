"""A caller's own client: the two methods that every client has are enough."""

from collections.abc import AsyncGenerator
from typing import Any, Final, Protocol, Unpack

from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationOptions, Piece, PromptIds, Usage
from pipeline.generation.requests import check_request


class TokenClient(Protocol):
    """What must be there at least. That its ids mean what the spec's mean is the caller's word."""

    async def tokenize(self, text: str) -> list[int]:
        """Return a text's ids."""
        ...

    async def generate_from_token_ids(self, prompt_token_ids: list[int], **options: Any) -> Completion | str:
        """Return the answer: a text, or a `Completion` with what is known about it.

        Args:
            prompt_token_ids: The whole prompt.
            options: `max_tokens`, and `temperature` and `stop` where they were asked for.
        """
        ...


class OwnClient:
    """Makes a `GenerationClient` of a caller's own."""

    def __init__(self, client: TokenClient) -> None:
        self.engine: Final = Engine(kind="custom", model=None, takes="token_ids", tokenizes=False)
        self._client = client

    async def limits(self) -> EngineLimits:
        """Return nothing known."""
        return EngineLimits()

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:  # noqa: ARG002  # not asked of callers
        """Return a text's ids."""
        return await self._client.tokenize(text)

    async def generate_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Return the answer to a prompt; see `GenerationClient`."""
        request = check_request(prompt_token_ids, **options)
        sampling: dict[str, Any] = {"max_tokens": request.max_tokens}
        if request.temperature is not None:
            sampling["temperature"] = request.temperature
        if request.stop:
            sampling["stop"] = list(request.stop)
        answer = await self._client.generate_from_token_ids(request.prompt_token_ids.tolist(), **sampling)
        if isinstance(answer, Completion):
            return answer
        usage = Usage(
            prompt_tokens=len(request.prompt_token_ids), completion_tokens=len(await self._client.tokenize(answer))
        )
        return Completion(text=answer, finish_reason="stop", usage=usage)

    async def stream_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Piece | Completion]:
        """Yield the answer as one piece, and as a whole."""
        completion = await self.generate_from_token_ids(prompt_token_ids, **options)
        yield Piece(text=completion.text, token_ids=completion.token_ids)
        yield completion

    async def aclose(self) -> None:
        """Leave the client to its owner."""
