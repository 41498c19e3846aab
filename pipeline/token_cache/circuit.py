"""Stops asking a service that just did not answer, so that its time-out is paid once and not by every query.

closed ──failure──▶ open ──after open_s──▶ one probe ──success──▶ closed
                     ▲────────────────────────failure────┘
"""

import time
from collections.abc import Callable


class Circuit:
    """State of one service as one process sees it. For use on one event loop; no lock."""

    def __init__(self, *, open_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._open_s = open_s
        self._clock = clock
        self._open_until: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last call failed."""
        return self._open_until is not None

    def allows(self) -> bool:
        """Whether to call now. While open, one caller per `open_s` seconds is let through as the probe."""
        if self._open_until is None:
            return True
        now = self._clock()
        if now < self._open_until:
            return False
        self._open_until = now + self._open_s
        return True

    def record_failure(self) -> bool:
        """Open, or stay open; return whether it was closed before."""
        was_closed = self._open_until is None
        self._open_until = self._clock() + self._open_s
        return was_closed

    def record_success(self) -> bool:
        """Close; return whether it was open before."""
        was_open = self._open_until is not None
        self._open_until = None
        return was_open
