"""`TokenCachedRAG`: retrieval with cached token ids, for an application that wants it in its own process."""

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from qdrant_client import AsyncQdrantClient

from pipeline.database import Database, create_database_engine
from pipeline.generation import GenerationClient, OwnClient, TokenClient
from pipeline.retrieval.embedders import open_query_embedder
from pipeline.retrieval.embedding import QueryEmbedder
from pipeline.retrieval.qdrant import QdrantSearcher
from pipeline.retrieval.vector_index import VectorSearcher
from pipeline.services.auditing import Auditor, AuditSample
from pipeline.services.caching_switch import CachingSwitch, record_in
from pipeline.services.configuration import ConfigurationSource, CorpusView, load_configuration
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.services.generating import GenerateRequest, GenerationService
from pipeline.services.presenting_generation import generated_object
from pipeline.services.retrieving import Retrieved, Retriever, RetrieveRequest
from pipeline.services.spec_loading import SpecLoader
from pipeline.settings import load_settings
from pipeline.token_cache import L1Cache, MemoryStore, MemoryTokenReader, RedisTokenReader, TokenCache
from pipeline.token_cache.stores import TokenReader


class TokenCachedRAG:
    """Answers questions with the exact token ids of their context.

    For one event loop. Where corpora and specs are read from SQL is said by `FOREFILL_DATABASE_URL`, unless a
    configuration is handed in.
    """

    def __init__(
        self,
        vector_db: AsyncQdrantClient | VectorSearcher,
        llm_client: GenerationClient | TokenClient | None,
        redis_client: redis.asyncio.Redis | None,
        cache_ttl: int = 300,
        max_context_tokens: int = 8192,
        enable_caching: bool = True,  # noqa: FBT001, FBT002  # the published signature
        corpus: str = "default",
        spec: str | None = None,
        embedder: QueryEmbedder | None = None,
        *,
        configuration: ConfigurationSource | None = None,
    ) -> None:
        """Put the parts together; nothing is connected yet.

        Args:
            vector_db: Where passages are searched.
            llm_client: A client of `pipeline.generation`, or the caller's own with `tokenize` and
                `generate_from_token_ids` (see `TokenClient`); None when only retrieving. Closed by the caller.
            redis_client: Where entries are; None keeps them in this process only.
            cache_ttl: Seconds that an entry written back after a miss lives.
            max_context_tokens: Token budget of a context.
            enable_caching: False tokenizes every time: same ids, slower.
            corpus: Corpus that is asked.
            spec: Token spec; None for the corpus' active one.
            embedder: Embeds questions; None for what the settings name.
            configuration: Corpora and specs; None to read SQL. With one, what an audit finds is this process' alone.
        """
        settings = load_settings()
        hmac_key = settings.entry_hmac_key
        secret = None if hmac_key is None else hmac_key.get_secret_value().encode()
        reader: TokenReader = (
            MemoryTokenReader(MemoryStore(), hmac_key=secret, dictionary_for=dictionary_for)
            if redis_client is None
            else RedisTokenReader(
                redis_client, hmac_key=secret, dictionary_for=dictionary_for, timeout_s=settings.cache_timeout_s
            )
        )
        self._cache = TokenCache(reader, l1=L1Cache(settings.l1_max_bytes), write_back_ttl_s=cache_ttl)
        database = None
        if configuration is None:
            database = Database(create_database_engine(settings.database_url, pool_size=1))
            configuration = _configuration_from_sql(database)
        self._configuration = configuration
        self._corpus = corpus
        self._spec = spec
        self._max_context_tokens = max_context_tokens
        self._started = database is None
        searcher = QdrantSearcher(vector_db) if isinstance(vector_db, AsyncQdrantClient) else vector_db
        self._switch = CachingSwitch(
            record=None if database is None else record_in(database), forget=self._cache.clear_memory
        )
        self._retriever = Retriever(
            searcher=searcher,
            embedder=embedder or open_query_embedder(settings),
            cache=self._cache,
            configuration=self._configuration,
            switch=self._switch,
            auditor=Auditor(searcher, switch=self._switch, sample=AuditSample(every=settings.audit_every)),
            max_query_bytes=settings.max_query_bytes,
            caching_percent=100 if enable_caching else 0,
        )
        client = llm_client if llm_client is None or isinstance(llm_client, GenerationClient) else OwnClient(llm_client)
        self._generation = GenerationService(self._retriever, client, handshake=settings.engine_handshake)

    async def retrieve_tokens(self, query: str, top_k: int = 5) -> tuple[list[int], dict[str, Any]]:
        """Return the token ids of a question's context, and what they are made of.

        Returns:
            The ids up to the question, and metadata with `cache_hit`, `doc_count`, `token_count`, `latency_ms`.

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: The query is empty or too long.
            Unavailable: Search or embedder did not answer.
        """
        found = await self._retrieve(query, top_k=top_k)
        return found.context.token_ids.tolist(), {
            "cache_hit": found.cache_hit,
            "doc_count": len(found.context.passages),
            "token_count": len(found.context.token_ids),
            "latency_ms": found.latency_ms,
            "truncated": found.context.truncated,
            "spec": found.spec.spec_id,
        }

    async def generate_with_rag(
        self,
        query: str,
        top_k: int = 5,
        max_tokens: int = 1024,
        *,
        temperature: float | None = None,
        stop: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Answer a question with the given `llm_client`.

        Returns:
            `response`, `context_tokens`, `query_tokens`, `cache_hit`, `latency_ms`, `finish_reason`, `usage`,
            `passages`, `metadata`, `prompt_token_ids` and `token_ids` (None where the engine does not say them).

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: A parameter is out of range, or the prompt does not fit the engine.
            Conflict: There is no `llm_client`, or it tokenizes otherwise than the corpus' spec.
            Unavailable: Search, embedder or engine did not answer, or not to the end.
        """
        await self._start()
        request = GenerateRequest(
            retrieve=self._request(query, top_k=top_k), max_tokens=max_tokens, temperature=temperature, stop=tuple(stop)
        )
        answer = generated_object(await self._generation.generate(request), return_token_ids=True)
        return {**answer, "prompt_token_ids": answer["prompt_token_ids"].tolist()}

    async def hybrid_search_with_tokens(self, query: str, top_k: int = 5) -> tuple[list[int], dict[str, Any]]:
        """Return the same as `retrieve_tokens`: every search is dense and sparse, fused."""
        return await self.retrieve_tokens(query, top_k=top_k)

    def get_cache_stats(self) -> dict[str, float]:
        """Return hits, misses, hit rate (percent), errors and mean latencies (ms) of this process."""
        stats = self._cache.stats()
        return {
            "hits": stats.hits,
            "misses": stats.misses,
            "hit_rate": stats.hit_rate,
            "errors": stats.errors,
            "avg_hit_latency_ms": stats.avg_hit_latency_ms,
            "avg_miss_latency_ms": stats.avg_miss_latency_ms,
        }

    def reset_stats(self) -> None:
        """Count anew from here."""
        self._cache.reset_stats()

    async def clear_cache(self) -> int:
        """Drop every entry from the shared cache and from this process; return how many.

        Raises:
            Unavailable: The cache did not answer.
        """
        return await self._cache.clear()

    async def close(self) -> None:
        """Release what this object made: background work, configuration, connections; not the clients handed in."""
        await self._configuration.close()
        await self._switch.close()
        await self._cache.close()

    async def _start(self) -> None:
        if not self._started:
            await self._configuration.start()
            self._started = True

    async def _retrieve(self, query: str, *, top_k: int) -> Retrieved:
        await self._start()
        return await self._retriever.retrieve(self._request(query, top_k=top_k))

    def _request(self, query: str, *, top_k: int) -> RetrieveRequest:
        return RetrieveRequest(
            corpus=self._corpus,
            query=query,
            top_k=top_k,
            max_context_tokens=self._max_context_tokens,
            spec=self._spec,
        )


def _configuration_from_sql(database: Database) -> ConfigurationSource:
    specs = SpecLoader(database)

    def prepare(view: CorpusView) -> object:
        return specs.prepare(view.spec_id, fingerprint=view.fingerprint)

    return ConfigurationSource(lambda: load_configuration(database), copy=None, prepare=prepare)
