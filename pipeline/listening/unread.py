"""Whether a client reads what it is sent: judged by what waits in the connection's buffer, look by look."""

from pipeline.listening.limits import MIN_BODY_BYTES_PER_S


class Unread:
    """Follows one connection's buffer.

    Args:
        timeout_s: How long nothing may be read of it.
    """

    __slots__ = ("_moved", "_read_bytes", "_since", "_timeout_s", "_unread_bytes")

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._unread_bytes = self._read_bytes = 0
        self._since = self._moved = 0.0

    def is_over(self, unread_bytes: int, *, clock: float, ended: bool) -> bool:
        """Note what waits now; return whether the client has had its time to read.

        A stream may be long, and is only asked not to stand still. An answer that has ended must be read at a least
        rate, too: what waits can only become less.

        Args:
            unread_bytes: What the buffer holds.
            clock: Seconds of waiting so far, ever more.
            ended: Whether the answer is in the buffer to its end.
        """
        if unread_bytes == 0 or self._unread_bytes == 0:
            self._since = self._moved = clock
            self._read_bytes = 0
        elif unread_bytes < self._unread_bytes:
            self._read_bytes += self._unread_bytes - unread_bytes
            self._moved = clock
        self._unread_bytes = unread_bytes
        if clock - self._moved > self._timeout_s:
            return True
        return ended and clock - self._since > self._timeout_s + self._read_bytes / MIN_BODY_BYTES_PER_S
