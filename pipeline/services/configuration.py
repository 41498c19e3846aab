"""What the read path knows of corpora and specs: a snapshot of SQL, refreshed in the background.

No query waits for SQL. Every process takes one snapshot per request, keeps the last good one while SQL is away, and a
copy on disk for a start without it. Nothing of this is in Redis.
"""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from pipeline.database import Database
from pipeline.documents.corpora import filled_specs, list_corpora
from pipeline.errors import ExactnessError, ForefillError, NotFound, Unavailable
from pipeline.telemetry.logs import get_logger
from pipeline.tokenizers import load_spec

_log = get_logger(__name__)

REFRESH_S = 2.0
"""Seconds between two looks at SQL."""


@dataclass(frozen=True, slots=True)
class CorpusView:
    """What a query needs to know of one corpus."""

    name: str
    collection: str
    spec_id: str
    fingerprint: str
    caching_enabled: bool
    embedder: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """All corpora at one moment. Immutable: a request that began with it ends with it."""

    corpora: Mapping[str, CorpusView]

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
            active = [spec for spec in filled_specs(connection, corpus.pk) if spec.status == "active"]
            for spec in active:
                views[corpus.name] = CorpusView(
                    corpus.name,
                    corpus.collection,
                    spec.spec_id,
                    spec.fingerprint,
                    spec.caching_enabled,
                    corpus.embedder,
                )
    return Configuration(views)


def prepare_spec(view: CorpusView) -> None:
    """Load a corpus' spec, so that no query waits for it.

    Raises:
        ExactnessError: This process computes other ids than the corpus' entries were written with.
    """
    spec = load_spec(view.spec_id)
    if spec.fingerprint != view.fingerprint:
        raise ExactnessError(
            f"spec {spec.spec_id} is recorded as {view.fingerprint}, but this process computes {spec.fingerprint}"
        )


class ConfigurationSource:
    """Keeps the current configuration of one process. For one event loop."""

    def __init__(
        self, load: Callable[[], Configuration], *, snapshot_path: Path | None, prepare: Callable[[CorpusView], object]
    ) -> None:
        """Remember what is needed.

        Args:
            load: Reads SQL; called in a thread.
            snapshot_path: Where the last good copy is kept, None for nowhere.
            prepare: Loads a corpus' spec, in a thread, before the first query needs it, and refuses one that computes
                other ids than recorded.
        """
        self._load = load
        self._snapshot_path = snapshot_path
        self._prepare = prepare
        self._current: Configuration | None = None
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
        if self._current is None:
            self._current = self._read_copy()
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
                for view in fresh.corpora.values():
                    await asyncio.to_thread(self._prepare, view)
            except ForefillError as error:
                _log.warning("configuration.not_refreshed", error=str(error))
                return
            if fresh != self._current:
                self._current = fresh
                await asyncio.to_thread(self._write_copy, fresh)

    async def _keep_refreshing(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S)
            await self.refresh()

    def _write_copy(self, configuration: Configuration) -> None:
        if self._snapshot_path is None:
            return
        data = orjson.dumps([asdict(view) for view in configuration.corpora.values()])
        handle, temporary = tempfile.mkstemp(dir=self._snapshot_path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(self._snapshot_path)

    def _read_copy(self) -> Configuration | None:
        if self._snapshot_path is None or not self._snapshot_path.exists():
            return None
        views = [CorpusView(**view) for view in orjson.loads(self._snapshot_path.read_bytes())]
        _log.warning("configuration.from_copy", corpora=len(views))
        return Configuration({view.name: view for view in views})
