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
from functools import partial
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError

from pipeline.database import Database
from pipeline.documents.access import ApiKey, list_keys
from pipeline.documents.corpora import filled_specs, list_corpora
from pipeline.errors import ForefillError, InvalidInput, NotFound, Unavailable
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

T = TypeVar("T")

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
        self._mistake: ForefillError | None = None  # why the last look failed, if it was its user's
        self._access: Access | None = None
        self._refused: dict[str, str] = {}  # why, by name of the corpora whose spec never could be prepared
        self._kept: Configuration | None = None
        self._task: asyncio.Task[None] | None = None
        self._working: asyncio.Future[Any] | None = None
        self._refreshing = asyncio.Lock()

    @property
    def is_ready(self) -> bool:
        """Whether there is a configuration to answer with."""
        return self._current is not None

    def current(self) -> Configuration:
        """Return the last good configuration.

        Raises:
            Unavailable: There has been none yet.
            InvalidInput: So it is, and waiting will not help: what this process was given names what does not exist.
            NotFound: As before.
        """
        if self._current is None:
            if self._mistake is not None:
                raise self._mistake
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
            Unavailable: There is no configuration, or this process cannot work with the corpus' spec.
        """
        if self._current is None or name not in self._current.corpora:
            await self.refresh()
        view = self.current().corpus(name)
        if name in self._refused:
            raise Unavailable(f"spec {view.spec_id} is not usable here: {self._refused[name]}", service="spec")
        return view

    async def start(self) -> None:
        """Read once, from SQL or else from the copy on disk, and go on in the background."""
        await self.refresh()
        if self._access is None and self._copy is not None:
            kept = await asyncio.to_thread(self._copy.read)
            if kept is not None:
                await self._take_over(kept)
        self._task = asyncio.create_task(self._keep_refreshing(), name="configuration")

    async def close(self) -> None:
        """Stop refreshing, and wait for a thread that is at work: it may hold a connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._working is not None:
            await asyncio.gather(self._working, return_exceptions=True)

    async def refresh(self) -> None:
        """Read SQL now; on failure keep what there is. Callers who come meanwhile wait for the same read."""
        if self._refreshing.locked():
            async with self._refreshing:
                return
        async with self._refreshing:
            try:
                fresh = await self._in_thread(self._load)
            except (ForefillError, SQLAlchemyError) as error:
                self._mistake = error if isinstance(error, InvalidInput | NotFound) else None
                _log.warning("configuration.not_refreshed", error=str(error))
                return
            await self._take_over(fresh)
            await self._keep()

    async def _take_over(self, fresh: Configuration) -> None:
        """Make a configuration the current one: its keys at once, the rest when all specs are there.

        A corpus whose spec cannot be prepared goes on with the one that it had; without one it is refused.
        """
        self._access = fresh.access
        views, refused = dict(fresh.corpora), {}
        broken = await self._prepare_specs(fresh)
        for name, view in fresh.corpora.items():
            if view.fingerprint not in broken:
                continue
            last = None if self._current is None or name in self._refused else self._current.corpora.get(name)
            if last is not None and last.collection == view.collection:
                views[name] = replace(view, spec_id=last.spec_id, fingerprint=last.fingerprint)
            else:
                refused[name] = broken[view.fingerprint]
        self._current, self._refused = replace(fresh, corpora=views), refused

    async def _prepare_specs(self, fresh: Configuration) -> dict[str, str]:
        """Prepare every spec once; return why not by the fingerprint of those that could not be."""
        broken: dict[str, str] = {}
        for fingerprint, view in {view.fingerprint: view for view in fresh.corpora.values()}.items():
            try:
                await self._in_thread(partial(self._prepare, view))
            except ForefillError as error:
                broken[fingerprint] = str(error)
                _log.warning("configuration.not_prepared", spec=view.spec_id, error=str(error))
        return broken

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """Run something that blocks; it goes on, and is waited for by `close`, when the caller is cancelled."""
        working = asyncio.ensure_future(asyncio.to_thread(work))
        self._working = working
        return await asyncio.shield(working)

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
