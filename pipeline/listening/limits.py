"""What a connection may take: bytes, and seconds of waiting."""

from dataclasses import dataclass

from pipeline.settings import Settings

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers; also what may come between two parts of a body (chunk extensions, trailers)."""

MAX_HEADERS = 256
"""Headers of a request; a short one takes 30 times its bytes in memory."""

MAX_PIPELINED = 16
"""Requests of one connection that wait for the answer to an earlier one."""

MIN_BODY_BYTES_PER_S = 8 * 1024
"""What a body must advance by, and what an answer must be read by, once the first seconds are over."""

RESERVED = 128
"""Connections beyond the limit on which probes are answered, and nothing else: more than come in one turn of the loop,
so that a probe is read before newcomers take its place."""

SLICE_BYTES = 16 * 1024
"""How much is parsed before it is counted."""

LINGER_BYTES = 4 * 1024 * 1024
LINGER_S = 2.0
"""How much of what a refused client still sends, and for how long, is read and dropped: it may be sending before it
reads, and would see a reset instead of its answer."""

SLOW_AFTER_S = 2.0
"""From when on a body that advances too slowly gives its place to a newcomer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListeningLimits:
    """Limits that an operator may want others of."""

    max_connections: int = 1000
    """Open connections of one process."""
    head_timeout_s: float = 10.0
    """From a connection, or the first byte of its next request, to the end of the head."""
    body_timeout_s: float = 30.0
    """How long a body, or the reading of an answer, may stand still. In whole it may take this, and a second more for
    every `MIN_BODY_BYTES_PER_S`."""
    idle_timeout_s: float = 20.0
    """From an answer to the first byte of the next request."""


def limits_of(settings: Settings) -> ListeningLimits:
    """Return the limits that settings say."""
    return ListeningLimits(
        max_connections=settings.max_connections,
        head_timeout_s=settings.request_head_timeout_s,
        body_timeout_s=settings.request_body_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
    )
