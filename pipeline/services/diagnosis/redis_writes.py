"""Whether broker and cache take writes. A server that is full, a replica, or out of disk answers every ping."""

from types import MappingProxyType

from redis import ResponseError

from pipeline.bounded_redis import FAILURES, bounded_client
from pipeline.errors import Unavailable
from pipeline.telemetry.logs import get_logger
from pipeline.token_cache.keys import PROBE_KEY

_log = get_logger(__name__)

_TIMEOUT_S = 1.0
_PROBE_MS = 1000

_REASONS = MappingProxyType(
    {
        "OOM": "it is full: the memory in use is above its maxmemory",
        "READONLY": "it is a read-only replica",
        "MISCONF": "it cannot write its data to disk (MISCONF)",
        "NOREPLICAS": "it has fewer replicas than it wants before it takes writes",
        "NOPERM": "the user of its URL may not write",
        "CLUSTERDOWN": "its cluster is down",
    }
)
"""What a server's error says, by its first word."""
_CLASSES = MappingProxyType({"OutOfMemoryError": "OOM", "ReadOnlyError": "READONLY", "NoPermissionError": "NOPERM"})
"""First words that redis-py drops where it has a class for them."""


class WriteProbe:
    """Asks one server to take a write. Connects on first use; thread-safe."""

    def __init__(self, url: str, *, service: str) -> None:
        """Remember where it is.

        Args:
            url: Of the server.
            service: `broker` or `cache`.
        """
        self._service = service
        self._client = bounded_client(url, timeout_s=_TIMEOUT_S)

    def require_writes(self) -> None:
        """Return when the server has taken a write.

        Raises:
            Unavailable: It refuses writes, or does not answer; the message says which, and why.
        """
        try:
            self._client.set(PROBE_KEY, b"", px=_PROBE_MS)
        except ResponseError as error:
            _log.warning("redis.writes_refused", service=self._service, error=str(error)[:200])
            raise Unavailable(f"{self._service} refuses writes: {reason_of(error)}", service=self._service) from error
        except FAILURES as error:
            reason = f"{self._service} does not answer ({type(error).__name__})"
            raise Unavailable(reason, service=self._service) from error

    def problem(self) -> str | None:
        """Return in a sentence why no write is taken; None if one was."""
        try:
            self.require_writes()
        except Unavailable as error:
            return str(error)
        return None

    def close(self) -> None:
        """Release connections; twice is fine."""
        self._client.close()


def reason_of(error: ResponseError) -> str:
    """Return what a refusal means, in our words."""
    word = _CLASSES.get(type(error).__name__) or (str(error).split() or [""])[0]
    return _REASONS.get(word, f"it answers {word if word.isupper() else type(error).__name__}")
