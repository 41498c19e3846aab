"""What handlers are given: the process's services, and threads to wait for SQL in.

SQL blocks, so it never runs on the event loop. Writers have a few threads of their own: a slow disk makes writes wait
for one another, and neither reads nor questions for them.

A new route: add its line to `SCOPES` in `api/access.py` (that is all for scopes, and for a `{corpus}` in the address);
use `route_class=JsonRoute`; and where a corpus is named elsewhere, or nowhere, take a `CurrentCaller`:

    async def handle(context: Context, caller: CurrentCaller, body: SomeBody) -> Response:
        caller.require_corpus(body.corpus)      # or caller.require_every_corpus()
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy import Connection

from api.access import Caller, current_caller
from pipeline.database import Database
from pipeline.errors import ForefillError, Unavailable
from pipeline.factory import (
    ReadContext,
    corpus_defaults,
    open_database,
    open_generation,
    open_read_context,
    open_token_writer,
)
from pipeline.jobs.redis_nudge import Nudger
from pipeline.services.diagnosis.database_writes import DatabaseWriteProbe
from pipeline.services.diagnosis.redis_writes import WriteProbe
from pipeline.services.generating import GenerationService
from pipeline.services.ingestion import CorpusDefaults, IngestionService
from pipeline.services.inspection import PresenceCheck
from pipeline.services.key_mismatches import reporting_to
from pipeline.services.spec_loading import SpecLoader
from pipeline.settings import Settings
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.metrics import shared_folder
from pipeline.token_cache import LookupStatistics, RedisTokenWriter, SharedStatistics, TokenCache

_log = get_logger(__name__)

_READ_THREADS = 8
_WRITE_THREADS = 4
_CACHE_TIMEOUT_S = 1.0
"""For what operators ask the cache; questions have a shorter time-out of their own."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class ApiContext:
    """What lives as long as this process's event loop."""

    settings: Settings
    database: Database
    read_path: ReadContext
    statistics: LookupStatistics
    """Of all processes that serve this port; asked in a thread."""
    ingestion: IngestionService
    defaults: CorpusDefaults
    cache: RedisTokenWriter
    database_writes: DatabaseWriteProbe
    cache_writes: WriteProbe
    broker_writes: WriteProbe
    nudger: Nudger
    generation: GenerationService
    golden_failure: str | None
    """Why this process would compute other ids than recorded; None if it would not."""
    _readers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_READ_THREADS))
    _writers: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(_WRITE_THREADS))

    async def select(self, work: Callable[[Connection], T]) -> T:
        """Run something in a unit of work that only reads.

        Raises:
            Unavailable: The database did not answer.
        """

        def read() -> T:
            with self.database.read() as connection:
                return work(connection)

        return await self.in_thread(read)

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run something that blocks and reads."""
        return await anyio.to_thread.run_sync(work, limiter=self._readers)

    async def write(self, work: Callable[[], T]) -> T:
        """Run something that blocks and writes to SQL."""
        return await anyio.to_thread.run_sync(work, limiter=self._writers)

    def presence(self) -> PresenceCheck:
        """Return a question to the cache for one request; once it does not answer, nothing counts as cached."""
        failed = False

        def is_present(fingerprint: str, keys: Sequence[bytes]) -> list[bool]:
            nonlocal failed
            if not failed:
                try:
                    return self.cache.exists(fingerprint, keys)
                except Unavailable as error:
                    failed = True
                    _log.warning("api.presence_unknown", error=str(error))
            return [False] * len(keys)

        return is_present


@asynccontextmanager
async def open_context(settings: Settings) -> AsyncIterator[ApiContext]:
    """Build what the process needs, and close it at the end; inside the event loop that will use it."""
    database = open_database(settings, durable=True, pool_size=_READ_THREADS + _WRITE_THREADS)
    read_path = open_read_context(settings, database)
    cache = open_token_writer(settings, timeout_s=_CACHE_TIMEOUT_S, report=reporting_to(database))
    cache_writes = WriteProbe(settings.cache_url, service="cache")
    broker_writes = WriteProbe(settings.broker_url, service="broker")
    nudger = Nudger(settings.broker_url)
    generation = open_generation(settings, read_path.retriever)
    try:
        defaults = await anyio.to_thread.run_sync(corpus_defaults, settings, database)
        context = ApiContext(
            settings=settings,
            database=database,
            read_path=read_path,
            statistics=_statistics(settings, read_path.cache),
            ingestion=IngestionService(database, defaults=defaults, nudge=nudger.nudge),
            defaults=defaults,
            cache=cache,
            database_writes=DatabaseWriteProbe(database),
            cache_writes=cache_writes,
            broker_writes=broker_writes,
            nudger=nudger,
            generation=generation,
            golden_failure=await anyio.to_thread.run_sync(partial(_golden_failure, database, settings.spec)),
        )
        await read_path.configuration.start()
        yield context
    finally:
        await generation.close()
        await read_path.close()
        for part in (nudger, broker_writes, cache_writes, cache, database):
            await anyio.to_thread.run_sync(part.close)


def _statistics(settings: Settings, own: TokenCache) -> LookupStatistics:
    folder = shared_folder()
    return own if settings.api_processes == 1 or folder is None else SharedStatistics(folder, own)


def _golden_failure(database: Database, spec_id: str) -> str | None:
    try:
        SpecLoader(database).check(spec_id)
    except Unavailable:
        return None  # an added spec is compared whenever it is loaded
    except ForefillError as error:
        _log.error("api.golden_ids_differ", spec=spec_id, error=str(error))
        return str(error)
    return None


async def _context(request: Request) -> ApiContext:  # a plain function would cost every request a thread
    context: ApiContext = request.app.state.context
    return context


Context = Annotated[ApiContext, Depends(_context)]

CurrentCaller = Annotated[Caller, Depends(current_caller)]
"""Who sent the request; says for which corpora."""
