"""Every error Forefill raises on purpose, in one tree.

    ForefillError
    ├── NotFound            a named thing does not exist                          404
    ├── Forbidden           the caller may not do this                            403
    ├── Conflict            the request contradicts what is already there         409
    ├── InvalidInput        the caller's data cannot be accepted, names the item  422
    │   └── TooLarge        … because it is over a limit                          413
    ├── StaleFence          somebody else owns this work now; discard, say nothing
    ├── CorruptEntry        bytes in the cache are not an entry; a counted miss
    ├── ExactnessError      ids would differ from the reference; refuse
    ├── ConfigurationError  a setting is missing or contradicts another
    └── Unavailable         an outside service did not answer; retryable          503

HTTP, the command line and Celery give these a meaning at their own edge; nothing inside raises a web exception.
"""

from typing import ClassVar


class ForefillError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        retryable: Whether the same call may succeed later without anybody changing anything.
    """

    retryable: ClassVar[bool] = False


class NotFound(ForefillError):
    """A corpus, document, run or spec does not exist."""


class Forbidden(ForefillError):
    """The caller is known, and may not do this: another scope or corpus is needed."""


class Conflict(ForefillError):
    """The request contradicts existing state, for instance another body under a used Idempotency-Key."""


class InvalidInput(ForefillError):
    """The caller's data cannot be accepted; the message names the item and the reason."""

    def __init__(self, message: str, *, item: str | None = None) -> None:
        super().__init__(message)
        self.item = item
        """Which document, line or field is meant."""


class TooLarge(InvalidInput):
    """The caller's data is over a configured limit."""


class StaleFence(ForefillError):
    """The work has a newer owner: whatever this one still holds must be discarded."""


class CorruptEntry(ForefillError):
    """Bytes read from the cache are no valid entry for the key they were read under."""


class ExactnessError(ForefillError):
    """Token ids would differ from the reference ids; the input is refused instead of guessed."""


class ConfigurationError(ForefillError):
    """A setting is missing, malformed or contradicts another."""


class Unavailable(ForefillError):
    """An outside service did not answer in time or refused the connection."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, service: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.service = service
        """Which one: `database`, `broker`, `cache`, `qdrant`, `embedder`, `engine`, or `spec`, that of a corpus."""
        self.retry_after_s = retry_after_s
        """Seconds after which a retry is sensible."""
