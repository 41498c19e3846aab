"""When to try again: pure functions of the attempt's number."""

import random

_BASE_S = 0.5


def backoff_s(attempt: int, *, cap_s: float = 60.0, spread: float | None = None) -> float:
    """Return seconds to wait before the next attempt: doubling, capped, spread over its upper half.

    Args:
        attempt: 1 after the first failure.
        cap_s: Longest wait.
        spread: Where in the upper half, 0 to 1; random when None, so that many jobs do not return at once.
    """
    full = min(cap_s, _BASE_S * 2.0 ** min(attempt, 30))
    share = random.random() if spread is None else spread
    return full / 2 + share * full / 2
