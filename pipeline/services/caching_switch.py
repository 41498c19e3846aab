"""Whether this process may answer from entries, and how it stops for a corpus and spec: at once here, by a row for all.

What must stay true: after `switch_off` no answer of this process comes from an entry until a snapshot of SQL says that
caching was enabled *after* the row was written. A snapshot read before the switch-off says that it is on, too, and must
not count; so times of the row decide, never what is seen first. No query waits for SQL.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.database import Database
from pipeline.documents.caching import disable_caching
from pipeline.jobs.retry import backoff_s
from pipeline.services.configuration import CorpusView, SpecCaching
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

RecordSwitchOff: TypeAlias = Callable[[str, str, str], int | None]
"""Writes a switch-off (collection, spec, reason) to SQL; returns the row's time, None if there is no row."""


def record_in(database: Database) -> RecordSwitchOff:
    """Return what writes switch-offs to a database."""

    def record(collection: str, spec_id: str, reason: str) -> int | None:
        with database.write() as connection:
            return disable_caching(connection, collection, spec_id, reason=reason)

    return record


@dataclass(slots=True, eq=False)
class _SwitchOff:
    """One switch-off of this process."""

    collection: str
    spec_id: str
    reason: str
    is_recorded: bool = False
    disabled_at: int | None = None
    """The row's time; None until it is written, and for good where there is no row."""

    def is_over(self, caching: SpecCaching) -> bool:
        """Return whether a snapshot was read after an operator enabled caching again."""
        if self.disabled_at is None or caching.enabled_at is None:
            return False
        return caching.enabled and caching.enabled_at > self.disabled_at


class CachingSwitch:
    """Lives as long as its process; for one event loop."""

    def __init__(
        self,
        *,
        record: RecordSwitchOff | None,
        forget: Callable[[], None],
        pause_s: Callable[[int], float] = backoff_s,
    ) -> None:
        """Remember what is needed.

        Args:
            record: Writes a switch-off to SQL, called in a thread; None for a process without SQL.
            forget: Drops the entries that this process holds in memory: a verification mends the shared cache only.
            pause_s: Seconds before the next attempt to write, by the number of those that failed.
        """
        self._record = record
        self._forget = forget
        self._pause_s = pause_s
        self._switch_offs: dict[tuple[str, str], _SwitchOff] = {}
        self._enabled_at: dict[tuple[str, str], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def allows(self, view: CorpusView, spec_id: str) -> bool:
        """Return whether an answer may come from entries and be put together from pieces."""
        key = (view.collection, spec_id)
        caching = view.caching_of(spec_id)
        mine = self._switch_offs.get(key)
        if not caching.enabled or (mine is not None and not mine.is_over(caching)):
            return False
        if caching.enabled_at is not None and caching.enabled_at > self._enabled_at.get(key, -1):
            self._enabled_at[key] = caching.enabled_at
            self._forget()
        return True

    def switch_off(self, view: CorpusView, spec_id: str, *, reason: str) -> None:
        """Stop using entries of a spec for a corpus: here at once, everywhere by a row that is written soon."""
        key = (view.collection, spec_id)
        mine = self._switch_offs.get(key)
        if mine is not None and not mine.is_over(view.caching_of(spec_id)):
            return  # questions that were on their way found it, too
        mine = self._switch_offs[key] = _SwitchOff(view.collection, spec_id, reason)
        _log.error("caching.switched_off", corpus=view.name, spec=spec_id, reason=reason)
        if self._record is not None:
            task = asyncio.create_task(self._write(self._record, mine), name="caching switch-off")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Wait until everything is written."""
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Stop trying; what is not written yet is tried once more, since no later start would know of it."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._record is not None:
            for mine in self._switch_offs.values():
                if not mine.is_recorded:
                    await self._try(self._record, mine, attempt=0)

    async def _write(self, record: RecordSwitchOff, mine: _SwitchOff) -> None:
        for attempt in itertools.count(1):
            if await self._try(record, mine, attempt=attempt):
                return
            await asyncio.sleep(self._pause_s(attempt))

    async def _try(self, record: RecordSwitchOff, mine: _SwitchOff, *, attempt: int) -> bool:
        fields = {"collection": mine.collection, "spec": mine.spec_id, "attempt": attempt}
        try:
            mine.disabled_at = await asyncio.to_thread(record, mine.collection, mine.spec_id, mine.reason)
        except Exception as error:  # noqa: BLE001  # whatever SQL says, other processes must learn of it
            _log.warning("caching.switch_off_not_written", error=str(error), **fields)
            return False
        mine.is_recorded = True
        _log.warning("caching.switch_off_written", has_row=mine.disabled_at is not None, **fields)
        return True
