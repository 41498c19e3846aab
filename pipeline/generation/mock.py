"""An engine that is none: deterministic answers, for demonstrations, tests and the first start without a model.

The answer says that it is a mock, how long the prompt was, and a digest of its ids: equal prompts have equal answers,
and a prompt with one id changed has another one.
"""

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cached_property
from typing import Final, Unpack

import numpy as np

from pipeline.errors import ExactnessError
from pipeline.framing import TokenIds
from pipeline.generation.chat_messages import Decoder
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationOptions, Piece, PromptIds, Usage
from pipeline.generation.requests import check_limits, check_request
from pipeline.tokenizers import load_spec

HOSTED_ENCODING = "o200k_base"
"""Encoding of ids given to a hosted API without their text, of its estimates, and of the mock's answers."""


def hosted_tokenizer() -> Decoder:
    """Return the tokenizer of that encoding."""
    return load_spec(f"{HOSTED_ENCODING}/plain").tokenizer


class MockClient:
    """A `GenerationClient` without an engine: `MockClient()`."""

    def __init__(
        self, tokenizer: Callable[[], Decoder] = hosted_tokenizer, *, window_tokens: int | None = None
    ) -> None:
        """Prepare.

        Args:
            tokenizer: Makes the tokenizer of the answers' ids, when it is needed.
            window_tokens: A window to pretend.
        """
        self.engine: Final = Engine(kind="mock", model="mock", takes="token_ids", tokenizes=False)
        self._make_tokenizer = tokenizer
        self._known_limits = EngineLimits(window_tokens=window_tokens)

    @cached_property
    def _tokenizer(self) -> Decoder:
        return self._make_tokenizer()

    async def limits(self) -> EngineLimits:
        """Return the pretended window."""
        return self._known_limits

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:  # noqa: ARG002  # text stays text here
        """Return a text's ids."""
        ids: list[int] = self._tokenizer.encode(text).tolist()
        return ids

    async def generate_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> Completion:
        """Return the answer to a prompt; see `GenerationClient`."""
        request = check_request(prompt_token_ids, **options)
        check_limits(request, self._known_limits)
        text, stopped = _until(_answer(request.prompt_token_ids), request.stop)
        ids = self._tokenizer.encode(text)
        cut = len(ids) > request.max_tokens
        if cut:
            text, ids = self._cut(ids, request.max_tokens)
        return Completion(
            text=text,
            finish_reason="length" if cut and not stopped else "stop",
            usage=Usage(prompt_tokens=len(request.prompt_token_ids), completion_tokens=len(ids)),
            token_ids=tuple(ids.tolist()),
            prompt_token_ids=tuple(request.prompt_token_ids.tolist()),
        )

    async def stream_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Piece | Completion]:
        """Yield the answer piece by piece; see `GenerationClient`."""
        completion = await self.generate_from_token_ids(prompt_token_ids, **options)
        for piece in self._pieces(np.array(completion.token_ids, dtype=np.uint32)):
            yield piece
        yield completion

    async def aclose(self) -> None:
        """Do nothing."""

    def _cut(self, ids: TokenIds, count: int) -> tuple[str, TokenIds]:
        """Return at most so many ids and their text, without half a character at the end."""
        for kept in range(count, 0, -1):
            text = self._text_of(ids[:kept])
            if text is not None:
                return text, ids[:kept]
        return "", ids[:0]

    def _pieces(self, ids: TokenIds) -> list[Piece]:
        """Return the answer in the fewest ids that are whole characters, one after the other."""
        pieces, begin = [], 0
        for end in range(1, len(ids) + 1):
            text = self._text_of(ids[begin:end])
            if text is not None:
                pieces.append(Piece(text=text, token_ids=tuple(ids[begin:end].tolist())))
                begin = end
        return pieces

    def _text_of(self, ids: TokenIds) -> str | None:
        try:
            return self._tokenizer.decode(ids)
        except ExactnessError:
            return None


def _answer(prompt: TokenIds) -> str:
    digest = hashlib.sha256(prompt.astype("<u4").tobytes()).hexdigest()[:12]
    read = f"it read a prompt of {len(prompt)} token ids (digest {digest})"
    return f" This is the mock engine: {read} and knows no answer. 🤖"


def _until(text: str, stops: Sequence[str]) -> tuple[str, bool]:
    """Return a text up to the first stop in it, and whether there was one."""
    ends = [at for stop in stops if (at := text.find(stop)) >= 0]
    return (text[: min(ends)], True) if ends else (text, False)
