"""Waiting out a service that is away for a moment: accepting or asking twice is harmless."""

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_exponential_jitter

from pipeline.cli.output import Output
from pipeline.errors import Unavailable, operator_sentence

PATIENCE_S = 60.0
"""Seconds after which a service that stays away is an error."""


def patiently(output: Output, *, patience_s: float = PATIENCE_S) -> Retrying:
    """Return a caller that repeats a function while a service is unavailable, and says so once.

    Args:
        output: Where it is said.
        patience_s: Seconds until the last error is raised.
    """

    def say(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        if state.attempt_number == 1 and isinstance(error, Unavailable):
            output.note(f"{operator_sentence(error)}; trying again for {patience_s:.0f} s")

    return Retrying(
        retry=retry_if_exception_type(Unavailable),
        stop=stop_after_delay(patience_s),
        wait=wait_exponential_jitter(multiplier=0.2, max=5.0, jitter=0.2),
        before_sleep=say,
        reraise=True,
    )
