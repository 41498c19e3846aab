"""What is checked before anything is sent: engines coerce, cap and default silently.

`"2"`, `2.0` and `true` become ids there, an id of another vocabulary is served without a word, an answer that does not
fit the window is cut, `max_tokens` defaults to 16. So all of it is refused or made explicit here.
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.errors import InvalidInput
from pipeline.framing import Segment, TokenIds
from pipeline.generation.client import EngineLimits, GenerationRequest, PromptIds

MAX_ANSWER_TOKENS = 1_000_000
"""Most tokens an answer may be asked to have."""
MAX_STOPS = 16
"""Most stop texts."""
MAX_STOP_BYTES = 256
"""Most bytes of one stop text."""
MAX_TEMPERATURE = 2.0

_LARGEST_ID = 2**31 - 1


def check_request(
    prompt_token_ids: PromptIds,
    *,
    max_tokens: int,
    temperature: float | None = None,
    stop: Sequence[str] = (),
    stop_token_ids: Sequence[int] = (),
    segments: Sequence[Segment] = (),
) -> GenerationRequest:
    """Return a request that no engine needs to guess about.

    Raises:
        InvalidInput: Something is out of range or of another type; the error names it.
    """
    if not _is_whole(max_tokens) or not 1 <= max_tokens <= MAX_ANSWER_TOKENS:
        raise InvalidInput(f"max_tokens must be a whole number from 1 to {MAX_ANSWER_TOKENS:,}", item="max_tokens")
    if temperature is not None:
        _check_temperature(temperature)
    return GenerationRequest(
        prompt_token_ids=checked_ids(prompt_token_ids),
        max_tokens=max_tokens,
        temperature=temperature,
        stop=_checked_stops(stop),
        stop_token_ids=tuple(checked_ids(stop_token_ids, item="stop_token_ids").tolist()) if stop_token_ids else (),
        segments=tuple(segments),
    )


def checked_ids(ids: PromptIds, *, item: str = "prompt_token_ids") -> TokenIds:
    """Return ids as an array.

    Raises:
        InvalidInput: There are none, or one is no whole number from 0 to 2³¹ - 1.
    """
    if len(ids) == 0:
        raise InvalidInput(f"{item} is empty", item=item)
    if isinstance(ids, np.ndarray):
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise InvalidInput(f"{item} must be a list of whole numbers", item=item)
    elif not all(_is_whole(each) for each in ids):
        raise InvalidInput(f"{item} must hold whole numbers only", item=item)
    lowest, highest = int(np.min(ids)), int(np.max(ids))
    if lowest < 0 or highest > _LARGEST_ID:
        raise InvalidInput(f"{item} holds {lowest if lowest < 0 else highest}, which is no token id", item=item)
    return np.asarray(ids, dtype=np.uint32)


def check_limits(request: GenerationRequest, limits: EngineLimits) -> None:
    """Refuse what the engine would answer wrongly or not at all.

    Raises:
        InvalidInput: An id is outside its vocabulary, or prompt and answer do not fit its window.
    """
    size = limits.vocabulary_size
    if size is not None:
        for item, ids in (("prompt_token_ids", request.prompt_token_ids), ("stop_token_ids", request.stop_token_ids)):
            if len(ids) and int(np.max(ids)) >= size:
                raise InvalidInput(
                    f"{item} holds {int(np.max(ids))}, but the engine's vocabulary has {size:,} ids", item=item
                )
    window, prompt = limits.window_tokens, len(request.prompt_token_ids)
    if window is not None and prompt + request.max_tokens > window:
        raise InvalidInput(
            f"the prompt's {prompt:,} tokens and max_tokens {request.max_tokens:,} exceed the engine's window of "
            f"{window:,} tokens",
            item="max_tokens",
        )


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _check_temperature(temperature: object) -> None:
    number = temperature if isinstance(temperature, int | float) and not isinstance(temperature, bool) else math.nan
    if not 0 <= number <= MAX_TEMPERATURE:  # NaN is neither
        raise InvalidInput(f"temperature must be a number from 0 to {MAX_TEMPERATURE:g}", item="temperature")


def _checked_stops(stop: Sequence[str]) -> tuple[str, ...]:
    if isinstance(stop, str):
        raise InvalidInput("stop must be a list of texts", item="stop")
    if len(stop) > MAX_STOPS:
        raise InvalidInput(f"stop has more than {MAX_STOPS} texts", item="stop")
    for text in stop:
        if not text or len(text.encode(errors="replace")) > MAX_STOP_BYTES:
            raise InvalidInput(f"a stop must be a text of 1 to {MAX_STOP_BYTES} bytes", item="stop")
    return tuple(stop)
