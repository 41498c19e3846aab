"""What the read path knows of corpora, specs and API keys: a snapshot of SQL, refreshed in the background.

No query waits for SQL. Every process takes one snapshot per request, keeps the last good one while SQL is away, and a
copy on disk for a start without it. Nothing of this is in Redis.

Keys must not wait for anything else: they are taken over as soon as they are read, whatever is wrong with a spec. Until
they have been read nobody knows whether there are any, and `access` says so.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from pipeline.database import Database
from pipeline.documents.access import ApiKey, list_keys
from pipeline.documents.corpora import filled_specs, list_corpora
from pipeline.errors import ForefillError, NotFound, Unavailable
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

REFRESH_S = 2.0
"""Seconds between two looks at SQL."""


@dataclass(frozen=True, slots=True)
class SpecCaching:
    """Whether answers of one corpus may come from entries of one spec."""

    spec_id: str
    enabled: bool = True
    """False: an audit found a difference, and nobody has enabled it again."""
    enabled_at: int | None = None
    """When caching was enabled again last, by the database's clock; None if it never was off."""


@dataclass(frozen=True, slots=True)
class CorpusView:
    """What a query needs to know of one corpus."""

    name: str
    collection: str
    spec_id: str
    fingerprint: str
    embedder: str
    caching: tuple[SpecCaching, ...] = ()
    """Of every spec the corpus is filled for."""

    def caching_of(self, spec_id: str) -> SpecCaching:
        """Return whether a spec's entries may be used; nothing was ever said against one that is not filled."""
        return next((each for each in self.caching if each.spec_id == spec_id), SpecCaching(spec_id))


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask, at one moment."""

    keys: Mapping[str, ApiKey]
    """Active keys by id."""
    required: bool
    """Whether a key is needed: there is one, or there was one. Revoking the last one closes, it does not open."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """All corpora and keys at one moment. Immutable: a request that began with it ends with it."""

    corpora: Mapping[str, CorpusView]
    access: Access

    def corpus(self, name: str) -> CorpusView:
        """Return one corpus.

        Raises:
            NotFound: There is none of that name.
        """
        view = self.corpora.get(name)
        if view is None:
            raise NotFound(f"there is no corpus {name!r}")
        return view


def load_configuration(database: Database) -> Configuration:
    """Read the configuration from SQL; corpora without an active spec are left out."""
    with database.read() as connection:
        views = {}
        for corpus in list_corpora(connection):
            filled = filled_specs(connection, corpus.pk)
            caching = tuple(SpecCaching(spec.spec_id, spec.caching_enabled, spec.enabled_at) for spec in filled)
            for spec in filled:
                if spec.status == "active":
                    views[corpus.name] = CorpusView(
                        corpus.name, corpus.collection, spec.spec_id, spec.fingerprint, corpus.embedder, caching
                    )
        keys = list_keys(connection)
    active_keys = {key.id: key for key in keys if key.revoked_at is None}
    return Configuration(views, Access(active_keys, required=bool(keys)))


class KeptCopy(Protocol):
    """Where the last good configuration outlives its process."""

    def write(self, configuration: Configuration) -> bool:
        """Replace what is kept; return whether it worked."""

    def read(self) -> Configuration | None:
        """Return what is kept, None if there is nothing."""


class ConfigurationSource:
    """Keeps the current configuration of one process. For one event loop."""

    def __init__(
        self, load: Callable[[], Configuration], *, copy: KeptCopy | None, prepare: Callable[[CorpusView], object]
    ) -> None:
        """Remember what is needed.

        Args:
            load: Reads SQL; called in a thread.
            copy: Keeps the last good one for a start without SQL.
            prepare: Loads a corpus' spec, in a thread, before the first query needs it, and refuses one that computes
                other ids than recorded.
        """
        self._load = load
        self._copy = copy
        self._prepare = prepare
        self._current: Configuration | None = None
        self._access: Access | None = None
        self._kept: Configuration | None = None
        self._task: asyncio.Task[None] | None = None
        self._refreshing = asyncio.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether there is a configuration to answer with."""
        return self._current is not None

    def current(self) -> Configuration:
        """Return the last good configuration.

        Raises:
            Unavailable: There has been none yet.
        """
        if self._current is None:
            raise Unavailable("the configuration was not read yet", service="database")
        return self._current

    def access(self) -> Access:
        """Return which keys there are, as read last.

        Raises:
            Unavailable: They were never read; nobody may be let in as if there were none.
        """
        if self._access is None:
            raise Unavailable("API keys were not read yet", service="database")
        return self._access

    async def corpus(self, name: str) -> CorpusView:
        """Return a corpus; one that is not known yet is looked for once.

        Raises:
            NotFound: There is none of that name.
            Unavailable: There is no configuration.
        """
        if self._current is None or name not in self._current.corpora:
            await self.refresh()
        return self.current().corpus(name)

    async def start(self) -> None:
        """Read once, from SQL or else from the copy on disk, and go on in the background."""
        await self.refresh()
        if self._access is None and self._copy is not None:
            kept = await asyncio.to_thread(self._copy.read)
            if kept is not None:
                await self._take_over(kept)
        self._task = asyncio.create_task(self._keep_refreshing(), name="configuration")

    async def close(self) -> None:
        """Stop refreshing."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Read SQL now; on failure keep what there is. Callers who come meanwhile wait for the same read."""
        if self._refreshing.locked():
            async with self._refreshing:
                return
        async with self._refreshing:
            try:
                fresh = await asyncio.to_thread(self._load)
            except (ForefillError, SQLAlchemyError) as error:
                _log.warning("configuration.not_refreshed", error=str(error))
                return
            await self._take_over(fresh)
            await self._keep()

    async def _take_over(self, fresh: Configuration) -> None:
        """Make a configuration the current one: its keys at once, the rest when all specs are there."""
        self._access = fresh.access
        try:
            for view in fresh.corpora.values():
                await asyncio.to_thread(self._prepare, view)
        except ForefillError as error:
            _log.warning("configuration.not_prepared", error=str(error))
            if self._current is not None:
                self._current = replace(self._current, access=fresh.access)
        else:
            self._current = fresh

    async def _keep(self) -> None:
        """Write the copy, again and again until it succeeds: it must not go on saying that a revoked key is good."""
        current = self._current
        if self._copy is None or current is None or current == self._kept:
            return
        if await asyncio.to_thread(self._copy.write, current):
            self._kept = current

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except Exception:  # noqa: BLE001  # whatever it is, the next look must happen: keys are revoked by it
                _log.exception("configuration.refresh_failed")
