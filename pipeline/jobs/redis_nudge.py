"""Nudges: "look now" from whoever left work to the dispatcher, through a Redis list on the broker.

Key `forefill:nudge`, a list of at most one element. A lost nudge costs half a second; nothing waits for one to be sent.
"""

import threading
import time

from redis import Redis

from pipeline.bounded_redis import FAILURES, bounded_client
from pipeline.telemetry.logs import get_logger

_KEY = "forefill:nudge"
_TIMEOUT_S = 1.0
_log = get_logger(__name__)


class Nudger:
    """Sends nudges from a thread of its own, so that callers never wait for the broker."""

    def __init__(self, broker_url: str) -> None:
        self._client = _connect(broker_url)
        self._wanted = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def nudge(self) -> None:
        """Ask for a look soon and return at once."""
        with self._lock:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._send, name="nudger", daemon=True)
                self._thread.start()
        self._wanted.set()

    def close(self) -> None:
        """Send what is wanted and stop."""
        self._closed = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * _TIMEOUT_S)
        self._client.close()

    def _send(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                with self._client.pipeline(transaction=False) as pipeline:
                    pipeline.lpush(_KEY, 1)
                    pipeline.ltrim(_KEY, 0, 0)
                    pipeline.execute()
            except FAILURES as error:
                _log.info("nudge.not_sent", error=type(error).__name__)
            if self._closed:
                return


class NudgeListener:
    """The dispatcher's side: waits for a nudge or a time."""

    def __init__(self, broker_url: str) -> None:
        self._client = _connect(broker_url)

    def wait(self, timeout_s: float) -> None:
        """Return after a nudge or after so many seconds, whether the broker answers or not."""
        until = time.monotonic() + timeout_s
        try:
            reply: object = self._client.brpop([_KEY], timeout=timeout_s)
            if reply is None or isinstance(reply, list | tuple):
                return
        except FAILURES as error:
            _log.info("nudge.not_heard", error=type(error).__name__)
        time.sleep(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Release the connection."""
        self._client.close()


def _connect(broker_url: str) -> "Redis":
    return bounded_client(broker_url, timeout_s=_TIMEOUT_S, client_name="forefill-nudge")
