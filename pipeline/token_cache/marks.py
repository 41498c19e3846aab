"""The cache's mark: which epoch it is in, and which secret its entries are signed with.

    EPOCH.CHECK    CHECK is half of an HMAC-SHA-256 of the epoch under the secret, `unsigned` where there is no secret
    EPOCH          set by a version without key checks: nothing is known of the secret, and everybody may write

A process that has another secret would write entries that are misses to all others. So each write of entries looks at
the mark first. The secret cannot be computed from the check, and a check says nothing about another epoch's.
"""

import hmac
import time
from collections.abc import Callable

from pipeline.errors import Unavailable
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_UNSIGNED = "unsigned"
_LABEL = b"forefill entry key check 1\0"
_SAID_AGAIN_S = 600.0


class KeyMismatchError(Unavailable):
    """This process has another entry key than the cache's entries are signed with; it must write none."""

    def __init__(self, message: str) -> None:
        super().__init__(message, service="cache")


class EntryRights:
    """Whether a process may write entries. One for each side of a cache; thread-safe."""

    def __init__(
        self,
        hmac_key: bytes | None,
        *,
        report: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Remember the secret.

        Args:
            hmac_key: The process' `FOREFILL_ENTRY_HMAC_KEY`.
            report: Told, in a sentence, when a write was refused: the first time, and then every ten minutes at most.
            clock: Seconds.
        """
        self._hmac_key = hmac_key
        self._report = report
        self._clock = clock
        self._is_refused = False
        self._reported_at = float("-inf")

    def mark(self, epoch: str) -> str:
        """Return the mark of an epoch whose entries this process signs."""
        return f"{epoch}.{self._check(epoch)}"

    def mismatch(self, mark: bytes | None) -> str | None:
        """Return in a sentence why this process' entries do not belong into the cache; None if they do.

        Args:
            mark: What the cache holds; None where it holds none, and then nobody is refused.
        """
        epoch, check = split_mark(mark)
        if epoch is None or check is None or hmac.compare_digest(check.encode(), self._check(epoch).encode()):
            return None
        name = "FOREFILL_ENTRY_HMAC_KEY"
        if check == _UNSIGNED:
            return f"the cache's entries are unsigned, and this process has a {name}: it writes no entries"
        if self._hmac_key is None:
            return f"the cache's entries are signed, and this process has no {name}: it writes no entries"
        return f"the cache's entries are signed with another {name} than this process has: it writes no entries"

    def require(self, mark: bytes | None) -> None:
        """Return if this process may write entries.

        Raises:
            KeyMismatchError: It may not.
        """
        reason = self.mismatch(mark)
        if reason is None:
            self._is_refused = False
            return
        if not self._is_refused:
            self._is_refused = True
            _log.error("cache.foreign_key", reason=reason)
        if self._report is not None and self._clock() - self._reported_at >= _SAID_AGAIN_S:
            self._reported_at = self._clock()
            self._report(reason)
        raise KeyMismatchError(reason)

    def _check(self, epoch: str) -> str:
        if self._hmac_key is None:
            return _UNSIGNED
        return hmac.digest(self._hmac_key, _LABEL + epoch.encode(), "sha256")[:16].hex()


def split_mark(mark: bytes | None) -> tuple[str | None, str | None]:
    """Return epoch and key check of a mark, None for each that it does not say."""
    if mark is None:
        return None, None
    epoch, _, check = mark.decode(errors="replace").partition(".")
    return epoch, check or None
