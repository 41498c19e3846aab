"""What qdrant-client raises, as Forefill's errors: one table. What a server says about itself goes to the log alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import orjson
from pydantic import ValidationError
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from pipeline.errors import ConfigurationError, Conflict, ForefillError, InvalidInput, NotFound, TooLarge, Unavailable
from pipeline.telemetry.logs import get_logger

SERVICE: Final = "qdrant"

_SAID_CHARS = 500
_log = get_logger(__name__)


def unreadable(what: str = "cannot be read") -> Unavailable:
    """Return the error for an answer that is not what was asked for."""
    return Unavailable(f"Qdrant's answer {what}", service=SERVICE)


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Raise what qdrant-client raises as Forefill's errors.

    Args:
        name: Collection that is asked.
    """
    try:
        yield
    except UnexpectedResponse as error:
        raise _from_status(error, name=name) from error
    except ResourceExhaustedResponse as error:
        _said("Qdrant is busy", error.message)
        raise Unavailable("Qdrant is busy", service=SERVICE, retry_after_s=error.retry_after_s) from error
    except ResponseHandlingException as error:
        raise _from_transport(error.source) from error
    except (ValueError, AssertionError) as error:
        if "not found" in str(error):  # how local mode says 404
            raise NotFound(f"Collection {name!r} does not exist") from error
        _said("unreadable", str(error))
        raise unreadable() from error
    except (RecursionError, LookupError, TypeError, AttributeError) as error:
        raise unreadable() from error


@asynccontextmanager
async def bounded(name: str, timeout_s: float) -> AsyncIterator[None]:
    """Do the same, and give up after a time, waiting for a free call included.

    Args:
        name: Collection that is asked.
        timeout_s: Seconds.
    """
    try:
        async with asyncio.timeout(timeout_s):
            with translated(name):
                yield
    except TimeoutError as error:
        raise Unavailable(f"Qdrant did not answer in time ({timeout_s:g} s)", service=SERVICE) from error


def _from_transport(source: Exception) -> ForefillError:
    if isinstance(source, ForefillError):
        return source
    if isinstance(source, ValidationError):
        return unreadable()
    _said("no answer", repr(source))
    return Unavailable(f"Qdrant did not answer ({type(source).__name__})", service=SERVICE)


def _from_status(error: UnexpectedResponse, *, name: str) -> ForefillError:
    status, message = error.status_code or 500, _message(error)
    if status == 404 and message is not None:
        return NotFound(f"Collection {name!r} does not exist")
    _said(str(status), error.content.decode(errors="replace") if message is None else message)
    if status in (401, 403):
        return ConfigurationError(f"Qdrant refuses the API key ({status})")
    if status in (404, 408, 429) or not 400 <= status < 500:
        return Unavailable(f"Qdrant answered {status}", service=SERVICE)
    kinds: dict[int, type[ForefillError]] = {409: Conflict, 413: TooLarge}
    return kinds.get(status, InvalidInput)(f"Collection {name!r}: Qdrant refuses the request ({status})")


def _message(error: UnexpectedResponse) -> str | None:
    """Return the sentence inside Qdrant's error, None if it is none of Qdrant's."""
    try:
        return str(orjson.loads(error.content)["status"]["error"])
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None


def _said(what: str, foreign: str) -> None:
    _log.warning("qdrant.answer", what=what, said=foreign[:_SAID_CHARS])
