"""Whether the database takes writes. A replica, a full disk or a lock that nobody lets go answers every question.

Found out by a write that is committed: nothing else meets every reason for refusing one.
"""

import threading
import time
from collections.abc import Callable

from pipeline.database import Database, now_ms
from pipeline.errors import Unavailable, operator_sentence
from pipeline.jobs.installation import set_fact

_FACT = "write_probed_at"
_FRESH_S = 5.0
"""Seconds that an answer holds: `/readyz` may be asked by anybody, as often as they like."""


class DatabaseWriteProbe:
    """Asks the database to take a write, one question at a time. Thread-safe."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._asking = threading.Lock()
        self._asked_at = float("-inf")
        self._refusal: Unavailable | None = None

    def require_writes(self) -> None:
        """Return when the database has taken a write, lately; while another thread asks, as it said last.

        Raises:
            Unavailable: It refuses writes, or does not answer.
        """
        if self._clock() - self._asked_at > _FRESH_S and self._asking.acquire(blocking=False):
            try:
                self._refusal = self._ask()
                self._asked_at = self._clock()
            finally:
                self._asking.release()
        if (refusal := self._refusal) is not None:
            raise Unavailable(
                str(refusal), service="database", retry_after_s=refusal.retry_after_s, reason=refusal.reason
            )

    def problem(self) -> str | None:
        """Return in a sentence for operators why no write is taken; None if one was."""
        try:
            self.require_writes()
        except Unavailable as error:
            return operator_sentence(error)
        return None

    def _ask(self) -> Unavailable | None:
        try:
            with self._database.write() as connection:
                now = connection.execute(now_ms().select()).scalar_one()
                set_fact(connection, _FACT, str(now))
        except Unavailable as error:
            return error
        return None
