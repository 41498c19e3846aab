"""The composition root: what lives as long as a process, and how it is put together from settings.

The only place that knows every adapter. Nothing is built at import; every context is closed by its owner. Contexts are
built after fork.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from pipeline.database import Database, create_database_engine
from pipeline.documents.splitting import Splitter
from pipeline.errors import ConfigurationError
from pipeline.jobs.redis_nudge import Nudger
from pipeline.retrieval.bm25 import Bm25Terms
from pipeline.retrieval.embedding import HybridEmbedder, PassageEmbedder, QueryEmbedder
from pipeline.retrieval.openai_embeddings import OpenAIPassageEmbedder, OpenAIQueryEmbedder
from pipeline.retrieval.qdrant import QdrantSearcher, QdrantWriter, connect_searcher, connect_writer
from pipeline.retrieval.static_vectors import StaticVectors
from pipeline.services.event_jobs import JobLimits, WorkerResources
from pipeline.services.ingestion import CorpusDefaults, IngestionService
from pipeline.services.job_runner import JobRunner
from pipeline.services.schema import pending_revision
from pipeline.settings import Settings
from pipeline.token_cache.redis_cache import RedisTokenReader, RedisTokenWriter
from pipeline.tokenizers import check_golden, load_spec


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """What a worker's child holds for its life."""

    job_runner: JobRunner
    nudger: Nudger
    close: Callable[[], None]


def open_database(settings: Settings, *, durable: bool, pool_size: int = 5) -> Database:
    """Open the database.

    Args:
        settings: Where it is.
        durable: Whether commits are promised to callers (see `create_database_engine`).
        pool_size: Connections kept open.
    """
    return Database(create_database_engine(settings.database_url, pool_size=pool_size, durable=durable))


def require_schema(database: Database) -> None:
    """Refuse to work on a database that is not at the newest revision.

    Raises:
        ConfigurationError: It is not; the message says what to do.
        Unavailable: It did not answer.
    """
    newest = pending_revision(database)
    if newest is not None:
        raise ConfigurationError(f"the database is not at revision {newest}: run `forefill db upgrade`")


def open_worker_context(settings: Settings, *, worker: str) -> ProcessContext:
    """Build what a worker's child needs, and compare the default spec's golden ids.

    Raises:
        ExactnessError: This process would compute other ids than were recorded.
    """
    check_golden(load_spec(settings.spec))
    database = open_database(settings, durable=False, pool_size=2)
    cache = open_token_writer(settings)
    index = open_index_writer(settings)
    embedder = open_passage_embedder(settings)
    nudger = Nudger(settings.broker_url)
    resources = WorkerResources(
        database=database,
        cache=cache,
        index=index,
        embedder=embedder,
        load_spec=load_spec,
        parse_splitter=Splitter.from_identity,
    )
    limits = JobLimits(max_attempts=settings.max_attempts, max_deaths=settings.max_deliveries)
    runner = JobRunner(
        resources, worker=worker, lease_s=settings.lease_s, heartbeat_s=settings.heartbeat_s, limits=limits
    )

    def close() -> None:
        for part in (nudger, embedder, index, cache, database):
            part.close()

    return ProcessContext(runner, nudger, close)


def open_ingestion(settings: Settings, database: Database, *, nudge: Callable[[], None]) -> IngestionService:
    """Build the service that accepts documents."""
    defaults = CorpusDefaults(
        spec=lambda: load_spec(settings.spec), splitter=Splitter().identity, embedder=embedder_name(settings)
    )
    return IngestionService(database, defaults=defaults, nudge=nudge)


def open_token_writer(settings: Settings) -> RedisTokenWriter:
    """Connect the workers' side of the cache."""
    ttl_s = settings.cache_ttl if settings.ttl_policy == "fixed" else None
    return RedisTokenWriter.connect(settings.cache_url, hmac_key=_hmac_key(settings), ttl_s=ttl_s)


def open_token_reader(settings: Settings) -> RedisTokenReader:
    """Connect the read path's side of the cache."""
    return RedisTokenReader.connect(
        settings.cache_url, hmac_key=_hmac_key(settings), timeout_s=settings.cache_timeout_s
    )


def open_index_writer(settings: Settings) -> QdrantWriter:
    """Connect the workers' side of Qdrant."""
    return connect_writer(settings.qdrant_url, api_key=_secret(settings.qdrant_api_key))


def open_index_searcher(settings: Settings) -> QdrantSearcher:
    """Connect the read path's side of Qdrant."""
    return connect_searcher(settings.qdrant_url, api_key=_secret(settings.qdrant_api_key))


def open_passage_embedder(settings: Settings) -> PassageEmbedder:
    """Build the embedder of passages that the settings name."""
    match settings.embedder:
        case "static-hybrid":
            return HybridEmbedder(dense=StaticVectors.load(), sparse=Bm25Terms())
        case "openai":
            return OpenAIPassageEmbedder(
                base_url=_embeddings_url(settings),
                api_key=_secret(settings.embeddings_api_key),
                model=settings.embeddings_model,
                dimension=settings.embeddings_dimension,
                sparse=Bm25Terms(),
            )


def open_query_embedder(settings: Settings) -> QueryEmbedder:
    """Build the embedder of questions that the settings name."""
    match settings.embedder:
        case "static-hybrid":
            return HybridEmbedder(dense=StaticVectors.load(), sparse=Bm25Terms())
        case "openai":
            return OpenAIQueryEmbedder(
                base_url=_embeddings_url(settings),
                api_key=_secret(settings.embeddings_api_key),
                model=settings.embeddings_model,
                dimension=settings.embeddings_dimension,
                sparse=Bm25Terms(),
            )


def embedder_name(settings: Settings) -> str:
    """Return the identity of the configured embedder."""
    embedder = open_passage_embedder(settings)
    try:
        return embedder.name
    finally:
        embedder.close()


def _embeddings_url(settings: Settings) -> str:
    if settings.embeddings_url is None:
        raise ConfigurationError("FOREFILL_EMBEDDER=openai needs FOREFILL_EMBEDDINGS_URL")
    return str(settings.embeddings_url)


def _hmac_key(settings: Settings) -> bytes | None:
    secret = _secret(settings.entry_hmac_key)
    return None if secret is None else secret.encode()


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
