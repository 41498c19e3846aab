"""A caller's own client: the two methods that every client has are enough.

What can be wrong with it is said before the engine is asked, as far as that can be known; what it answers is checked,
and an answer of another shape is one sentence, never a surprise further on.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias, Unpack

from pipeline.errors import ConfigurationError, ForefillError, InvalidInput, Unavailable
from pipeline.generation.client import Completion, Engine, EngineLimits, GenerationOptions, Piece, PromptIds, Usage
from pipeline.generation.refusals import SERVICE
from pipeline.generation.requests import check_request, checked_ids
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

OwnAnswer: TypeAlias = Completion | str | Mapping[str, Any]
"""A text; a mapping with `text` and perhaps `token_ids`, `usage` and `finish_reason`; or a `Completion`."""

_METHODS: Final[Mapping[str, tuple[tuple[Any, ...], Mapping[str, Any]]]] = {
    "tokenize": (("text",), {}),
    "generate_from_token_ids": (([1],), {"max_tokens": 1}),
}
"""What must be there, and how it is called at least."""


class TokenClient(Protocol):
    """What must be there at least. That its ids mean what the spec's mean is the caller's word."""

    @property
    def tokenize(self) -> Callable[[str], Awaitable[Sequence[int]]]:
        """Return a text's ids."""
        ...

    @property
    def generate_from_token_ids(self) -> Callable[..., Awaitable[OwnAnswer]]:
        """Return the answer to a whole prompt, in one of the three shapes.

        Called with the ids, and with `max_tokens`, `temperature` and `stop` by name, the last two where they were asked
        for.
        """
        ...


class OwnClient:
    """Makes a `GenerationClient` of a caller's own."""

    def __init__(self, client: TokenClient) -> None:
        """Look whether it has what is needed.

        Raises:
            ConfigurationError: It lacks a method, or one cannot be called as it will be.
        """
        for name, (arguments, options) in _METHODS.items():
            _require_method(client, name, arguments, options)
        self.engine: Final = Engine(kind="custom", model=None, takes="token_ids", tokenizes=False)
        self._client = client

    async def limits(self) -> EngineLimits:
        """Return nothing known."""
        return EngineLimits()

    async def tokenize(self, text: str, *, special: bool = False) -> list[int]:  # noqa: ARG002  # not asked of callers
        """Return a text's ids."""
        ids = await self._asked("tokenize", text)
        return _ids("tokenize", ids)

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
        _require_method(self._client, "generate_from_token_ids", ([1],), sampling)
        answer = await self._asked("generate_from_token_ids", request.prompt_token_ids.tolist(), **sampling)
        return await self._completion(answer, prompt_tokens=len(request.prompt_token_ids))

    async def stream_from_token_ids(
        self, prompt_token_ids: PromptIds, **options: Unpack[GenerationOptions]
    ) -> AsyncGenerator[Piece | Completion]:
        """Yield the answer as one piece, and as a whole."""
        completion = await self.generate_from_token_ids(prompt_token_ids, **options)
        yield Piece(text=completion.text, token_ids=completion.token_ids)
        yield completion

    async def aclose(self) -> None:
        """Leave the client to its owner."""

    async def _asked(self, name: str, *arguments: Any, **options: Any) -> object:
        """Call a method; one that is not asynchronous in a thread."""
        method: Callable[..., Any] = getattr(self._client, name)
        try:
            if inspect.iscoroutinefunction(method):
                return await method(*arguments, **options)
            answer = await asyncio.to_thread(method, *arguments, **options)
            return await answer if inspect.isawaitable(answer) else answer
        except ForefillError:
            raise
        except Exception as error:
            _log.warning("own_client.failed", method=name, error=str(error))
            raise Unavailable(f"llm_client.{name} raised {type(error).__name__}", service=SERVICE) from error

    async def _completion(self, answer: object, *, prompt_tokens: int) -> Completion:
        match answer:
            case Completion():
                return answer
            case str():
                answer = {"text": answer}
            case Mapping() if isinstance(answer.get("text"), str):
                pass
            case _:
                raise _unreadable(f"{_kind(answer)}; it must be a str, a mapping with text, or a Completion")
        text: str = answer["text"]
        given = answer.get("token_ids")
        token_ids = None if given is None else tuple(_ids("generate_from_token_ids", given, what="token_ids"))
        finish_reason = answer.get("finish_reason") or "stop"
        if not isinstance(finish_reason, str):
            raise _unreadable(f"a finish_reason that is {_kind(finish_reason)}")
        usage = answer.get("usage")
        if not isinstance(usage, Usage):
            usage = await self._usage(usage, text, token_ids, prompt_tokens=prompt_tokens)
        return Completion(text=text, finish_reason=finish_reason, usage=usage, token_ids=token_ids)

    async def _usage(self, said: object, text: str, token_ids: tuple[int, ...] | None, *, prompt_tokens: int) -> Usage:
        """Return the counts that the client says, and those that it does not as they can be counted here."""
        counts = {} if said is None else said
        if not isinstance(counts, Mapping):
            raise _unreadable(f"a usage that is {_kind(said)}")
        prompt, completion = _count(counts, "prompt_tokens"), _count(counts, "completion_tokens")
        if completion is None:
            completion = len(await self.tokenize(text) if token_ids is None else token_ids)
        return Usage(
            prompt_tokens=prompt_tokens if prompt is None else prompt,
            completion_tokens=completion,
            cached_tokens=_count(counts, "cached_tokens"),
        )


def _require_method(client: object, name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> None:
    method = getattr(client, name, None)
    if not callable(method):
        raise ConfigurationError(f"llm_client ({_kind(client)}) has no method {name}")
    try:
        inspect.signature(method).bind(*arguments, **options)
    except TypeError as error:
        raise ConfigurationError(f"llm_client.{name} cannot be called with {_call(options)}: {error}") from error
    except ValueError:
        return  # written in another language: nothing is known of it


def _call(options: Mapping[str, Any]) -> str:
    return ", ".join(("a prompt's ids", *options)) if options else "a text"


def _ids(method: str, ids: object, *, what: str = "") -> list[int]:
    """Return token ids as a client gave them; none at all are fine.

    Raises:
        Unavailable: They are none.
    """
    sizes = getattr(ids, "__len__", None)
    if sizes is None or isinstance(ids, str | bytes | Mapping):
        raise _unreadable(f"{_kind(ids)} {f'as {what} ' if what else ''}instead of token ids", method=method)
    try:
        listed: list[int] = checked_ids(list(ids)).tolist() if len(ids) else []  # type: ignore[arg-type, call-overload]  # has a length
    except InvalidInput as error:
        raise _unreadable(f"{what or 'a list'} with something else than token ids", method=method) from error
    return listed


def _count(usage: Mapping[str, Any], name: str) -> int | None:
    count = usage.get(name)
    if count is None:
        return None
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise _unreadable(f"a usage whose {name} is no count")
    return count


def _unreadable(what: str, *, method: str = "generate_from_token_ids") -> Unavailable:
    return Unavailable(f"llm_client.{method} returned {what}", service=SERVICE)


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__}"
