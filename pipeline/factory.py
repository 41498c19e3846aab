"""The composition root: what lives as long as a process, and how it is put together from settings.

The only place that knows every adapter. Nothing is built at import; every context is closed by its owner. Contexts are
built after fork.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from pipeline.database import Database, create_database_engine
from pipeline.documents.splitting import Splitter
from pipeline.jobs.redis_nudge import Nudger
from pipeline.retrieval.embedders import embedder_name, open_passage_embedder, open_query_embedder
from pipeline.retrieval.vector_index import VectorSearcher
from pipeline.services.auditing import Auditor, AuditSample
from pipeline.services.caching_switch import CachingSwitch, record_in
from pipeline.services.configuration import ConfigurationSource, load_configuration
from pipeline.services.configuration_copy import ConfigurationCopy
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.services.event_jobs import JobLimits, WorkerResources
from pipeline.services.ingestion import CorpusDefaults, IngestionService
from pipeline.services.job_runner import JobRunner
from pipeline.services.key_mismatches import reporting_to
from pipeline.services.retrieving import Retriever
from pipeline.services.spec_copies import SpecCopies
from pipeline.services.spec_loading import SpecLoader
from pipeline.settings import Settings
from pipeline.token_cache import L1Cache, TokenCache
from pipeline.token_cache.redis_cache import RedisTokenReader, RedisTokenWriter
from pipeline.tokenizers import use_twins

if TYPE_CHECKING:
    # Imported where they are connected: the clients take half a second, and ingesting or listing runs needs none.
    from pipeline.generation import GenerationClient
    from pipeline.retrieval.qdrant import QdrantSearcher, QdrantWriter
    from pipeline.services.generating import GenerationService


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """What a worker's child holds for its life."""

    job_runner: JobRunner
    nudger: Nudger
    database: Database
    close: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What the read path of one event loop holds for its life."""

    retriever: Retriever
    configuration: ConfigurationSource
    cache: TokenCache
    searcher: VectorSearcher
    close: Callable[[], Awaitable[None]]


def open_database(settings: Settings, *, durable: bool, pool_size: int = 5) -> Database:
    """Open the database.

    Args:
        settings: Where it is.
        durable: Whether commits are promised to callers (see `create_database_engine`).
        pool_size: Connections kept open.
    """
    return Database(create_database_engine(settings.database_url, pool_size=pool_size, durable=durable))


def open_worker_context(settings: Settings, *, worker: str) -> ProcessContext:
    """Build what a worker's child needs, and compare the default spec's golden ids.

    Raises:
        ExactnessError: This process would compute other ids than were recorded.
    """
    database = open_database(settings, durable=False, pool_size=2)
    use_twins(enabled=settings.fast_tokenizer == "auto")
    specs = SpecLoader(database)
    specs.check(settings.spec)
    cache = open_token_writer(settings, report=reporting_to(database))
    index = open_index_writer(settings)
    embedder = open_passage_embedder(settings)
    nudger = Nudger(settings.broker_url)
    resources = WorkerResources(
        database=database,
        cache=cache,
        index=index,
        embedder=embedder,
        load_spec=specs.load,
        parse_splitter=Splitter.from_identity,
    )
    limits = JobLimits(
        time_limit_s=settings.job_time_limit_s,
        max_attempts=settings.max_attempts,
        max_deaths=settings.max_deliveries,
    )
    runner = JobRunner(
        resources, worker=worker, lease_s=settings.lease_s, heartbeat_s=settings.heartbeat_s, limits=limits
    )

    def close() -> None:
        for part in (nudger, embedder, index, cache, database):
            part.close()

    return ProcessContext(runner, nudger, database, close)


def corpus_defaults(settings: Settings, database: Database) -> CorpusDefaults:
    """Return what a corpus is made with when nobody says otherwise."""
    specs = SpecLoader(database)
    return CorpusDefaults(
        spec=lambda: specs.load(settings.spec), splitter=Splitter().identity, embedder=embedder_name(settings)
    )


def open_ingestion(settings: Settings, database: Database, *, nudge: Callable[[], None]) -> IngestionService:
    """Build the service that accepts documents."""
    return IngestionService(database, defaults=corpus_defaults(settings, database), nudge=nudge)


def open_token_writer(
    settings: Settings, *, timeout_s: float = 5.0, report: Callable[[str], object] | None = None
) -> RedisTokenWriter:
    """Connect the workers' and operators' side of the cache.

    Args:
        settings: Where it is.
        timeout_s: Seconds for connecting and for each reply.
        report: Told when this process may not write entries (see `EntryRights`).
    """
    ttl_s = settings.cache_ttl if settings.ttl_policy == "fixed" else None
    return RedisTokenWriter.connect(
        settings.cache_url,
        hmac_key=_hmac_key(settings),
        ttl_s=ttl_s,
        dictionary_for=dictionary_for,
        timeout_s=timeout_s,
        report=report,
    )


def open_token_reader(settings: Settings, *, report: Callable[[str], object] | None = None) -> RedisTokenReader:
    """Connect the read path's side of the cache; `report` as in `open_token_writer`."""
    return RedisTokenReader.connect(
        settings.cache_url,
        hmac_key=_hmac_key(settings),
        dictionary_for=dictionary_for,
        timeout_s=settings.cache_timeout_s,
        report=report,
    )


def open_index_writer(settings: Settings) -> "QdrantWriter":
    """Connect the workers' side of Qdrant."""
    from pipeline.retrieval.qdrant import connect_writer  # noqa: PLC0415  # see above

    return connect_writer(settings.qdrant_url, api_key=_secret(settings.qdrant_api_key))


def open_index_searcher(settings: Settings) -> "QdrantSearcher":
    """Connect the read path's side of Qdrant."""
    from pipeline.retrieval.qdrant import connect_searcher  # noqa: PLC0415  # see above

    return connect_searcher(settings.qdrant_url, api_key=_secret(settings.qdrant_api_key))


def open_read_context(settings: Settings, database: Database) -> ReadContext:
    """Build what the read path needs; inside the event loop that will use it. Call `start` on its configuration."""
    cache = TokenCache(
        open_token_reader(settings, report=reporting_to(database)),
        l1=L1Cache(settings.l1_max_bytes),
        write_back_ttl_s=settings.cache_ttl,
    )
    specs = _spec_loader(settings, database)
    configuration = ConfigurationSource(
        lambda: load_configuration(database),
        copy=ConfigurationCopy(settings.snapshot_path),
        prepare=lambda view: specs.prepare(view.spec_id, fingerprint=view.fingerprint),
    )
    searcher = open_index_searcher(settings)
    embedder = open_query_embedder(settings)
    switch = CachingSwitch(record=record_in(database), forget=cache.clear_memory)
    retriever = Retriever(
        searcher=searcher,
        embedder=embedder,
        cache=cache,
        configuration=configuration,
        switch=switch,
        auditor=Auditor(searcher, switch=switch, sample=AuditSample(every=settings.audit_every)),
        max_query_bytes=settings.max_query_bytes,
        caching_percent=settings.token_caching_percent if settings.enable_token_caching else 0,
        load=specs.load,
    )

    async def close() -> None:
        await configuration.close()
        await switch.close()
        await cache.close()
        await searcher.close()
        await embedder.aclose()

    return ReadContext(retriever, configuration, cache, searcher, close)


def open_engine_client(settings: Settings) -> "GenerationClient | None":
    """Build the client of the configured engine, None if there is none; nothing is connected yet.

    Raises:
        ConfigurationError: A setting that this kind of engine needs is missing.
    """
    from pipeline.generation.engines import open_engine  # noqa: PLC0415  # see above

    return open_engine(settings)


def open_generation(settings: Settings, retriever: Retriever) -> "GenerationService":
    """Build the service that answers questions with the configured engine; close it before the retriever's parts.

    Raises:
        ConfigurationError: A setting that this kind of engine needs is missing.
    """
    from pipeline.services.generating import GenerationService  # noqa: PLC0415  # see above

    return GenerationService(retriever, open_engine_client(settings), handshake=settings.engine_handshake)


def _spec_loader(settings: Settings, database: Database) -> SpecLoader:
    copy = settings.snapshot_path
    return SpecLoader(database, copies=SpecCopies(copy and copy.with_name(f"{copy.name}.specs")))


def _hmac_key(settings: Settings) -> bytes | None:
    secret = _secret(settings.entry_hmac_key)
    return None if secret is None else secret.encode()


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
