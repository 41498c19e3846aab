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

Two errors of a job's work are no `Exception`, so that no handler on the way takes them for something else: `OutOfTime`,
and the panic of a library written in Rust. `is_failure` tells them from the end of the process.
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

    def __init__(self, message: str, *, service: str, retry_after_s: float = 1.0, reason: str | None = None) -> None:
        super().__init__(message)
        self.service = service
        """Which one: `database`, `broker`, `cache`, `qdrant`, `embedder`, `engine`, or `spec`, that of a corpus."""
        self.retry_after_s = retry_after_s
        """Seconds after which a retry is sensible."""
        self.reason = reason
        """What the service or its driver said, without secrets: for operators and logs, not for callers of HTTP."""


class OutOfTime(BaseException):
    """A job has used up its time and must stop, raised into whatever it is doing.

    No `Exception`, as a cancelled coroutine's is none: an adapter would make it an error of its library, and a document
    that was only in hand when the time was over would be refused for good.
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"it took longer than {limit_s:g} s")


def is_panic(error: BaseException) -> bool:
    """Tell whether a library in Rust gave up; each brings a class of its own, and they share only the name."""
    return type(error).__name__ == "PanicException"


def is_failure(error: BaseException) -> bool:
    """Tell whether an error is one of the work in hand, and not a wish that the process should end."""
    return isinstance(error, (Exception, OutOfTime)) or is_panic(error)


def error_sentence(error: BaseException) -> str:
    """Return what an operator may read: our own errors say it themselves, others might quote a document."""
    if isinstance(error, ForefillError | OutOfTime):
        return str(error)
    return "a library panicked" if is_panic(error) else f"unexpected {type(error).__name__}"


def operator_sentence(error: ForefillError) -> str:
    """Return an error as operators read it: with what the service that is unavailable said."""
    reason = error.reason if isinstance(error, Unavailable) else None
    return f"{error}: {reason}" if reason else str(error)
