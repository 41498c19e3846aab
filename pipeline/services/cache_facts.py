"""What a process that answers questions knows of the whole cache: how many tokens are in it, how much memory it takes.

Both are asked for beside the questions, never by one: whoever wants the statistics gets the last answer at once.
"""

import asyncio
from collections.abc import Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from pipeline.errors import ForefillError
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

FRESH_S = 0.25
"""Seconds after which what is known is asked for again, if somebody asks a question or for the statistics."""
REST = 20
"""So many times as long as it took is rested at least: a ledger that is slow to sum up is not asked all the time."""
FIRST_WAIT_S = 2.0
"""Seconds that the first answers may take before nothing is known yet."""


class CacheFacts:
    """The last answers of SQL and cache. For one event loop."""

    def __init__(self, *, count_tokens: Callable[[], int] | None, measure_bytes: Callable[[], Awaitable[int]]) -> None:
        """Remember whom to ask.

        Args:
            count_tokens: Sums up the ledger, in a thread; None for a process without SQL.
            measure_bytes: Asks the cache for its memory.
        """
        self.tokens: int | None = None
        """Tokens with an entry by the ledger; None while unknown, and for a process without SQL."""
        self.used_bytes: int | None = None
        """Memory of the cache; None while unknown, and when it did not answer last."""
        self._count_tokens = count_tokens
        self._measure_bytes = measure_bytes
        self._asking: asyncio.Task[None] | None = None
        self._not_before = 0.0
        self._untold = {"memory", "tokens"}

    async def start(self) -> None:
        """Ask for the first time, and wait a moment for it."""
        self.refresh_soon()
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=FIRST_WAIT_S)

    async def refresh(self) -> None:
        """Ask now, and wait for it."""
        if self._asking is not None:
            await asyncio.wait({self._asking})
        await self._ask()

    def refresh_soon(self) -> None:
        """Ask in the background, unless that was done just now; nothing happens outside an event loop."""
        try:
            now = asyncio.get_running_loop().time()
        except RuntimeError:
            return
        if now >= self._not_before and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(), name="cache facts")

    async def close(self) -> None:
        """Wait until nobody is asked any more: a thread that reads SQL cannot be stopped."""
        if self._asking is not None:
            await asyncio.wait({self._asking})

    async def _ask(self) -> None:
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            self.used_bytes = await self._measure_bytes()
        except ForefillError as error:
            self.used_bytes = None
            self._tell("memory", error)
        else:
            self._untold.add("memory")
        if self._count_tokens is not None:
            try:
                self.tokens = await asyncio.to_thread(self._count_tokens)
            except (ForefillError, SQLAlchemyError) as error:
                self.tokens = None
                self._tell("tokens", error)
            else:
                self._untold.add("tokens")
        ended = clock()
        self._not_before = ended + max(FRESH_S, REST * (ended - began))

    def _tell(self, what: str, error: Exception) -> None:
        """Log that something is not known any more, once until it is known again."""
        if what in self._untold:
            self._untold.discard(what)
            _log.warning("cache_facts.unknown", what=what, error=str(error))
