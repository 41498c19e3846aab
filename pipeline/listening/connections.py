"""All open connections of a process: how many, who gives way to whom, and the clock that ends those that wait."""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from pipeline.listening.limits import RESERVED, ListeningLimits
from pipeline.telemetry.logs import get_logger

if TYPE_CHECKING:
    from pipeline.listening.protocol import GuardedProtocol

_log = get_logger(__name__)

_SWEEP_S = 0.5
_REPORT_S = 60.0
_LONGEST_STEP_S = 1.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The body of an answer that no application gives."""

    media_type: bytes
    content: bytes


class Connections:
    """Counts connections, lets new ones in, and looks at all of them twice a second. For one event loop.

    Args:
        limits: What a connection may take.
        refusal: Makes the body of a refusal in the server's own shape.
        probes: Paths that are answered on a reserved connection.
    """

    def __init__(
        self,
        limits: ListeningLimits,
        *,
        refusal: Callable[[HTTPStatus, str], Refusal],
        probes: Collection[bytes] = (),
    ) -> None:
        self.limits = limits
        self.refusal = refusal
        self.probes = frozenset(probes)
        self.clock = 0.0
        """Seconds in which the event loop ran. A process that was paused, or got no processor, has not waited for
        anybody: what arrived meanwhile is read before anyone is blamed."""
        self._open: set[GuardedProtocol] = set()
        self._waiting: dict[GuardedProtocol, None] = {}  # owes us a request; the one that does longest is first
        self._slow: list[GuardedProtocol] = []  # as of the last sweep
        self._counts: Counter[str] = Counter()
        self._ticked_at: float | None = None
        self._swept_at = 0.0
        self._reported_at = 0.0

    def __len__(self) -> int:
        return len(self._open)

    def admit(self, connection: "GuardedProtocol") -> bool:
        """Take a new connection in, in the place of one that waits where all are taken; return whether there was any.

        `connection.probes_only` says afterwards whether it is one of the reserved ones.
        """
        most = self.limits.max_connections
        if len(self._open) >= most:
            self._make_room()
        if len(self._open) >= most + RESERVED:
            self._counts["turned_away"] += 1
            return False
        connection.probes_only = len(self._open) >= most
        self._open.add(connection)
        self._waiting[connection] = None
        return True

    def owes_request(self, connection: "GuardedProtocol") -> None:
        """Note that the next step is the client's: everything it asked for was answered."""
        if connection in self._open:
            self._waiting.pop(connection, None)
            self._waiting[connection] = None

    def has_asked(self, connection: "GuardedProtocol") -> None:
        """Note that a connection has sent a whole head, and is not ended for a newcomer any more."""
        self._waiting.pop(connection, None)

    def forget(self, connection: "GuardedProtocol") -> None:
        """Note that a connection has ended, or is about to."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def count(self, what: str) -> None:
        """Count something that was refused; the log says once a minute how often what was."""
        self._counts[what] += 1

    def tick(self, now: float) -> None:
        """Let the clock go on, and end those connections whose time is over.

        Args:
            now: Monotonic time.
        """
        if self._ticked_at is not None:
            self.clock += min(now - self._ticked_at, _LONGEST_STEP_S)
        self._ticked_at = now
        if self.clock - self._swept_at < _SWEEP_S:
            return
        self._swept_at = self.clock
        for connection in tuple(self._open):
            connection.look()
        self._slow = [connection for connection in self._open if connection.is_slow()]
        if self._counts and self.clock - self._reported_at > _REPORT_S:
            self._reported_at = self.clock
            _log.warning("listening.refused", open=len(self._open), **self._counts)
            self._counts.clear()

    def _make_room(self) -> None:
        """End the connection that has owed a request for longest, else one whose body hardly advances."""
        victim = next(iter(self._waiting), None)
        while victim is None and self._slow:
            candidate = self._slow.pop()
            victim = candidate if candidate in self._open and candidate.is_slow() else None
        if victim is not None:
            self._counts["gave_way"] += 1
            victim.end()
