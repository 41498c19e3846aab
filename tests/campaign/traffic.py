"""Requests of the campaign: every answer is counted, and one that must never be given is noted."""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.ports import NO_TLS

TIMEOUT_S = 60.0
"""Longer than any fault holds, so that a request which never ends shows."""

_LONG_S = 35.0
"""Nothing of ours may take longer, unless the process itself was stopped meanwhile."""

_MOST_NOTES = 50


@dataclass(slots=True)
class Traffic:
    """What was answered to whom; safe to use from several threads."""

    statuses: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Answers by who asked and status; `none` where the connection broke, `late` where no answer came in time."""
    faults: list[str] = field(default_factory=list)
    """Answers that must never be given."""
    slowest_s: float = 0.0
    slow: int = 0
    """Answers that took longer than half a minute."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self, who: str, answer: httpx.Response | None, status: str, took_s: float, *, fine: frozenset[int]
    ) -> None:
        """Count one answer, and say what is wrong with it."""
        with self._lock:
            self.statuses[who, status] += 1
            self.slowest_s = max(self.slowest_s, took_s)
            self.slow += took_s > _LONG_S
            if answer is not None and (said := _complaint(answer, fine)) and len(self.faults) < _MOST_NOTES:
                self.faults.append(f"{who}: {answer.request.method} {answer.request.url.path}: {said}")


class Client:
    """One caller's connection."""

    def __init__(self, api_url: str, traffic: Traffic, who: str) -> None:
        self._http = httpx.Client(base_url=api_url, timeout=TIMEOUT_S, trust_env=False, verify=NO_TLS)
        self._traffic = traffic
        self._who = who

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def ask(
        self, method: str, path: str, *, fine: frozenset[int] = frozenset(), **options: Any
    ) -> dict[str, Any] | None:
        """Send one request.

        Args:
            method: Of HTTP.
            path: Of the API.
            fine: Statuses that the caller asks for, besides 2xx and 503.
            options: As httpx takes them.

        Returns:
            The answer's object when it succeeded, None when there was no answer or another one.
        """
        answer = self.send(method, path, fine=fine, **options)
        if answer is None or not answer.is_success:
            return None
        found: dict[str, Any] = answer.json()
        return found

    def send(
        self, method: str, path: str, *, fine: frozenset[int] = frozenset(), **options: Any
    ) -> httpx.Response | None:
        """Send one request and return whatever came, None for nothing."""
        began = time.monotonic()
        answer: httpx.Response | None = None
        try:
            answer = self._http.request(method, path, **options)
            status = str(answer.status_code)
        except httpx.TimeoutException:
            status = "late"
        except httpx.HTTPError:  # the process was killed, or is not there
            status = "none"
        self._traffic.note(self._who, answer, status, time.monotonic() - began, fine=fine)
        return answer


def _complaint(answer: httpx.Response, fine: frozenset[int]) -> str:
    if answer.is_success or answer.status_code in fine:
        return ""
    if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return "" if answer.headers.get("retry-after") else f"503 without Retry-After: {answer.text[:300]}"
    return f"{answer.status_code}: {answer.text[:300]}"
