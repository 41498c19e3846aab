"""What `TokenCachedRAG` opens: the stores of a deployment, by the folder of a `forefill up` or by settings."""

import asyncio
import inspect
from dataclasses import dataclass
from pathlib import Path

import redis.asyncio
from qdrant_client import AsyncQdrantClient

from pipeline.database import Database, create_database_engine
from pipeline.errors import ConfigurationError, ForefillError
from pipeline.generation import Engine, GenerationClient, OwnClient, TokenClient
from pipeline.generation.engines import open_engine
from pipeline.retrieval.qdrant import QdrantSearcher, connect_searcher
from pipeline.retrieval.vector_index import VectorSearcher
from pipeline.services.configuration import (
    Access,
    Configuration,
    ConfigurationSource,
    CorpusView,
    load_configuration,
)
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.services.key_mismatches import reporting_to
from pipeline.services.own_search import OwnSearcher, OwnVectorDatabase
from pipeline.services.schema import require_file, require_newest
from pipeline.services.spec_loading import SpecLoader
from pipeline.settings import ENVIRONMENT_FILE, Settings, load_settings
from pipeline.token_cache import MemoryStore, MemoryTokenReader, RedisTokenReader
from pipeline.token_cache.stores import TokenReader
from pipeline.tokenizers import is_packaged, load_spec

_OTHERWISE = "name the folder of a `forefill up`, or the deployment's database with FOREFILL_DATABASE_URL"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stores:
    """Connections of one `connect`; nothing is sent before the first use."""

    settings: Settings
    folder: Path | None
    """Of a `forefill up`; None for servers of one's own."""
    searcher: QdrantSearcher
    engine: GenerationClient | None

    async def require_running(self, database: Database | None) -> None:
        """Refuse a folder on which nothing runs, and a database of another version.

        Raises:
            ConfigurationError: It is so; the sentence says what to do.
            Unavailable: The database did not answer.
        """
        if self.folder is not None:
            await self._require_up(self.folder)
        if database is not None:
            await asyncio.to_thread(require_newest, database)

    async def close(self) -> None:
        """Close what was opened here."""
        await self.searcher.close()
        if self.engine is not None:
            await self.engine.aclose()

    async def _require_up(self, folder: Path) -> None:
        """Ask Qdrant, without which no question is answered; a cache that is away for a moment costs time only."""
        try:
            await self.searcher.ping()
        except ForefillError as error:
            raise ConfigurationError(
                f"no `forefill up` runs on {folder}, or it is not ready yet: start it with "
                f"`forefill up --data-dir {folder}` ({error})"
            ) from error


def open_stores(folder: Path | None, *, with_engine: bool) -> Stores:
    """Open the stores of a deployment; inside the event loop that will use them.

    Args:
        folder: Of a `forefill up`; None for what the settings say.
        with_engine: Whether the engine that the settings name is opened, too.

    Raises:
        ConfigurationError: The folder holds no stack, there is no database, or a setting is malformed or missing.
    """
    if folder is not None:
        folder = folder.absolute()
        if not (folder / ENVIRONMENT_FILE).is_file():
            raise ConfigurationError(
                f"{folder} is no data directory: there is no {ENVIRONMENT_FILE} in it; "
                f"start `forefill up --data-dir {folder}` first"
            )
    settings = load_settings(folder)
    require_file(settings.database_url, otherwise=_OTHERWISE)
    api_key = settings.qdrant_api_key
    engine = open_engine(settings) if with_engine else None
    return Stores(
        settings=settings,
        folder=folder,
        searcher=connect_searcher(settings.qdrant_url, api_key=None if api_key is None else api_key.get_secret_value()),
        engine=engine,
    )


def sql_configuration(database: Database) -> ConfigurationSource:
    """Return a source of corpora and specs that reads SQL."""
    specs = SpecLoader(database)

    def prepare(view: CorpusView) -> object:
        return specs.prepare(view.spec_id, fingerprint=view.fingerprint)

    return ConfigurationSource(lambda: load_configuration(database), copy=None, prepare=prepare)


def open_configuration_database(settings: Settings, *, is_needed: bool) -> Database | None:
    """Open the database that says what corpora and specs there are.

    Args:
        settings: Where it is.
        is_needed: False opens none unless somebody named one: a search of the caller's own can do without.

    Raises:
        ConfigurationError: There is none.
    """
    if not is_needed and "database_url" not in settings.model_fields_set:
        return None
    require_file(settings.database_url, otherwise=_OTHERWISE)
    return Database(create_database_engine(settings.database_url, pool_size=1))


def own_configuration(
    database: Database | None, corpus: str, spec_id: str, *, is_spec_given: bool
) -> ConfigurationSource:
    """Return a source for a search of the caller's own, whose corpus Forefill's database may never have heard of.

    Args:
        database: Says the active spec of a corpus that it does know; None for no database at all.
        corpus: What the caller names it.
        spec_id: Spec of an unknown corpus.
        is_spec_given: Whether the caller chose it, and the active one does not matter.

    Raises:
        InvalidInput: There is no such spec.
    """
    if database is None and not is_packaged(spec_id):
        load_spec(spec_id)  # says what there is
    loader = None if database is None else SpecLoader(database)

    def load() -> Configuration:
        known = Configuration({}, Access({}, required=False)) if database is None else load_configuration(database)
        if corpus in known.corpora and not is_spec_given:
            return known
        spec = load_spec(spec_id) if loader is None else loader.load(spec_id)
        view = CorpusView(corpus, corpus, spec_id, spec.fingerprint, embedder="")
        return Configuration({**known.corpora, corpus: view}, known.access)

    def prepare(view: CorpusView) -> object:
        return loader and loader.prepare(view.spec_id, fingerprint=view.fingerprint)

    return ConfigurationSource(load, copy=None, prepare=prepare)


def as_client(given: GenerationClient | TokenClient | None) -> GenerationClient | None:
    """Return a client as generation takes it; what says its engine is one of ours."""
    if given is None:
        return None
    return given if isinstance(getattr(given, "engine", None), Engine) else OwnClient(given)  # type: ignore[return-value]  # told by its engine


def as_searcher(
    given: AsyncQdrantClient | VectorSearcher | OwnVectorDatabase, settings: Settings
) -> VectorSearcher | OwnSearcher:
    """Return what searches; a searcher of ours is known by its argument."""
    if isinstance(given, AsyncQdrantClient):
        return QdrantSearcher(given)
    try:
        takes_vectors = "embedding" in inspect.signature(given.search).parameters
    except (AttributeError, TypeError, ValueError):
        takes_vectors = False
    if takes_vectors:
        return given  # type: ignore[return-value]  # told by its argument
    return OwnSearcher(given, timeout_s=settings.vector_db_timeout_s)


def as_reader(given: redis.asyncio.Redis | str | None, settings: Settings, database: Database | None) -> TokenReader:
    """Return what reads entries.

    Args:
        given: The caller's client; or a URL, for connections that close with the reader; None for this process' memory.
        settings: Say the entry key and how long to wait.
        database: Told if the key does not fit the cache; None for nobody.

    Raises:
        ConfigurationError: It is none of these.
    """
    hmac_key = None if settings.entry_hmac_key is None else settings.entry_hmac_key.get_secret_value().encode()
    report = None if database is None else reporting_to(database)
    if given is None:
        store = MemoryStore(max_bytes=settings.l1_max_bytes)
        return MemoryTokenReader(store, hmac_key=hmac_key, dictionary_for=dictionary_for)
    open_reader = RedisTokenReader.connect if isinstance(given, str) else RedisTokenReader
    if not isinstance(given, str | redis.asyncio.Redis):
        raise ConfigurationError(f"redis_client must be a redis.asyncio.Redis, a URL or None, not {_kind(given)}")
    try:
        return open_reader(
            given,  # type: ignore[arg-type]  # what its type says, it takes
            hmac_key=hmac_key,
            dictionary_for=dictionary_for,
            timeout_s=settings.cache_timeout_s,
            report=report,
        )
    except ValueError as error:
        raise ConfigurationError("redis_client: the URL is none that Redis knows, like redis://HOST:PORT/0") from error


def _kind(value: object) -> str:
    return type(value).__name__
