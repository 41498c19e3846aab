"""What an engine's refusals mean in Forefill's tree: one table for HTTP statuses, whoever's client saw them.

The same statuses come as events inside a stream that began with 200. The engine's own sentence goes to the log alone:
it may hold anything. Nothing an engine does is ever an internal error of Forefill.
"""

import math
from http import HTTPStatus

from pipeline.errors import ForefillError, InvalidInput, TooLarge, Unavailable
from pipeline.telemetry.logs import get_logger

SERVICE = "engine"

_log = get_logger(__name__)

_MAX_MESSAGE = 200
_DEPLOYMENT = {
    HTTPStatus.UNAUTHORIZED: "check FOREFILL_ENGINE_API_KEY",
    HTTPStatus.FORBIDDEN: "check FOREFILL_ENGINE_API_KEY",
    HTTPStatus.NOT_FOUND: "check FOREFILL_ENGINE_URL, FOREFILL_ENGINE_KIND and FOREFILL_MODEL",
    HTTPStatus.METHOD_NOT_ALLOWED: "check FOREFILL_ENGINE_URL and FOREFILL_ENGINE_KIND",
}
_REFUSED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}


def refusal(status: int, message: str = "", *, retry_after: str | None = None) -> ForefillError:
    """Return what a status other than 200 means.

    Args:
        status: HTTP status, or the one that an error event names.
        message: What the engine says about it, for the log.
        retry_after: Its `Retry-After` header.
    """
    if message:
        _log.warning("engine.refused", status=status, said=shortened(message))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge("the engine finds the prompt too large")
    if status in _REFUSED:
        return InvalidInput(f"the engine refused the prompt ({status}): its reason is in the log")
    if status in _DEPLOYMENT:
        return Unavailable(
            f"the engine answered {status} ({_DEPLOYMENT[HTTPStatus(status)]})", service=SERVICE, retry_after_s=60.0
        )
    return Unavailable(f"the engine answered {status}", service=SERVICE, retry_after_s=seconds_to_wait(retry_after))


def unreadable(what: str = "cannot be read") -> Unavailable:
    """Return the error for an answer that is not what this kind of engine answers."""
    return Unavailable(f"the engine's answer {what}", service=SERVICE)


def broken_off() -> Unavailable:
    """Return the error for an answer without an end."""
    return Unavailable("the engine's answer broke off", service=SERVICE)


def shortened(message: str) -> str:
    """Return a message on one line and not too long."""
    line = " ".join(message.split())
    return line if len(line) <= _MAX_MESSAGE else line[: _MAX_MESSAGE - 1] + "…"


def seconds_to_wait(header: str | None) -> float:
    """Return what `Retry-After` asks for, between 1 and 60 s; dates are not read."""
    try:
        seconds = float(header or 1)
    except ValueError:
        return 1.0
    return min(max(seconds, 1.0), 60.0) if math.isfinite(seconds) else 1.0
