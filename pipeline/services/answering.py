"""`TokenCachedRAG`: retrieval with cached token ids, for an application that wants it in its own process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis.asyncio
from qdrant_client import AsyncQdrantClient

from pipeline.context import ContextPassage
from pipeline.database import Database
from pipeline.errors import Conflict
from pipeline.generation import GenerationClient, TokenClient
from pipeline.retrieval.embedders import open_query_embedder
from pipeline.retrieval.embedding import QueryEmbedder
from pipeline.retrieval.vector_index import VectorSearcher
from pipeline.services.auditing import Auditor, AuditSample
from pipeline.services.cache_clearing import clear_shared_cache
from pipeline.services.cache_facts import CacheFacts
from pipeline.services.caching_switch import CachingSwitch, record_in
from pipeline.services.configuration import ConfigurationSource
from pipeline.services.connecting import (
    Stores,
    as_client,
    as_reader,
    as_searcher,
    open_configuration_database,
    open_stores,
    own_configuration,
    sql_configuration,
)
from pipeline.services.generating import GenerateRequest, GenerationService
from pipeline.services.inspection import list_coverage
from pipeline.services.own_search import OwnSearcher, OwnVectorDatabase
from pipeline.services.presenting import cache_object, retrieved_object
from pipeline.services.presenting_generation import generated_object
from pipeline.services.retrieving import Retrieved, Retriever, RetrieveRequest
from pipeline.services.spec_loading import SpecLoader
from pipeline.settings import Settings, load_settings
from pipeline.token_cache import L1Cache, TokenCache
from pipeline.tokenizers import load_spec


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RetrievedPrompt:
    """A question's finished prompt, and what it is made of."""

    token_ids: list[int]
    """The context: what stands before the question. Empty if nothing was found."""
    prompt_token_ids: list[int]
    """The whole prompt, which begins with them: what an engine is sent."""
    passages: tuple[ContextPassage, ...]
    """Exactly those in `token_ids`, in prompt order: `document_id`, `ordinal`, `generation`, `score`, `token_count`,
    `source`."""
    metadata: dict[str, Any]
    """`cache_hit`, `doc_count`, `token_count`, `latency_ms`, `timings_ms`, `truncated`, `spec`."""

    @property
    def context_tokens(self) -> int:
        """Return how many ids are context."""
        return len(self.token_ids)

    @property
    def query_tokens(self) -> int:
        """Return how many ids are not."""
        return len(self.prompt_token_ids) - len(self.token_ids)


class TokenCachedRAG:
    """Answers questions with the exact token ids of their context.

    For one event loop. `connect` takes everything from the folder of a `forefill up`, or from the settings; made by
    hand, corpora and specs are read from where `FOREFILL_DATABASE_URL` says, unless a configuration is handed in.
    """

    def __init__(
        self,
        vector_db: AsyncQdrantClient | VectorSearcher | OwnVectorDatabase,
        llm_client: GenerationClient | TokenClient | None,
        redis_client: redis.asyncio.Redis | str | None,
        cache_ttl: int = 300,
        max_context_tokens: int = 8192,
        enable_caching: bool | None = None,  # noqa: FBT001  # the published signature
        corpus: str = "default",
        spec: str | None = None,
        embedder: QueryEmbedder | None = None,
        *,
        configuration: ConfigurationSource | None = None,
        settings: Settings | None = None,
    ) -> None:
        """Put the parts together; nothing is connected yet.

        Args:
            vector_db: Where passages are searched: Qdrant with Forefill's collections, or any object with
                `search(query, top_k)` that finds documents (see `OwnVectorDatabase`); each is then one passage, whose
                ids come from the cache by its content. Closed by the caller.
            llm_client: A client of `pipeline.generation`, or the caller's own with `tokenize` and
                `generate_from_token_ids` (see `TokenClient`); None when only retrieving. Closed by the caller.
            redis_client: Where entries are; None keeps them in this process only. A client is closed by the caller; for
                a URL this object makes one of its own.
            cache_ttl: Seconds that an entry written back after a miss lives.
            max_context_tokens: Token budget of a context.
            enable_caching: False tokenizes every time: same ids, slower. None for what the settings say, which False
                there decides for everybody.
            corpus: Corpus that is asked.
            spec: Token spec; None for the corpus' active one, or the settings' for a database of the caller's own.
            embedder: Embeds questions; None for what the settings name. Closed by the caller.
            configuration: Corpora and specs; None to read SQL. With one, what an audit finds is this process' alone.
            settings: None to read the environment.

        Raises:
            ConfigurationError: A setting is malformed, or something handed in cannot be what it must be.
        """
        if settings is None:
            settings = load_settings()
        self._corpus, self._spec, self._max_context_tokens = corpus, spec, max_context_tokens
        client = as_client(llm_client)
        searcher = as_searcher(vector_db, settings)
        self._closers: list[Callable[[], Awaitable[None]]] = []
        """What this object opened besides, in the order of closing."""
        self._stores: Stores | None = None
        is_own = isinstance(searcher, OwnSearcher)
        database = None if configuration is not None else open_configuration_database(settings, is_needed=not is_own)
        self._cache = TokenCache(
            as_reader(redis_client, settings, database),
            l1=L1Cache(settings.l1_max_bytes),
            write_back_ttl_s=cache_ttl,
        )
        self._database, self._brought_configuration = database, configuration is not None
        if configuration is None:
            configuration = (
                own_configuration(database, corpus, spec or settings.spec, is_spec_given=spec is not None)
                if is_own or database is None
                else sql_configuration(database)
            )
        self._configuration = configuration
        self._ledger = None if redis_client is None else database
        self._starting, self._is_started, self._is_closed = asyncio.Lock(), False, False
        if embedder is None:
            embedder = open_query_embedder(settings)
            self._closers.append(embedder.aclose)
        self._switch = CachingSwitch(
            record=None if database is None else record_in(database), forget=self._cache.clear_memory
        )
        is_on = settings.enable_token_caching and enable_caching is not False
        self._retriever = Retriever(
            searcher=searcher,
            embedder=embedder,
            cache=self._cache,
            configuration=self._configuration,
            switch=self._switch,
            auditor=Auditor(searcher, switch=self._switch, sample=AuditSample(every=settings.audit_every)),
            max_query_bytes=settings.max_query_bytes,
            caching_percent=settings.token_caching_percent if is_on else 0,
            load=load_spec if database is None else SpecLoader(database).load,
        )
        self._generation = GenerationService(self._retriever, client, handshake=settings.engine_handshake)
        self._facts = CacheFacts(
            count_tokens=None if database is None else lambda: _tokens_cached(database),
            measure_bytes=self._cache.used_bytes,
        )

    @classmethod
    def connect(
        cls,
        *,
        corpus: str = "default",
        data_dir: str | PathLike[str] | None = None,
        llm_client: GenerationClient | TokenClient | None = None,
        spec: str | None = None,
        max_context_tokens: int | None = None,
        enable_caching: bool | None = None,
    ) -> Self:
        """Return an object that uses the stores of a deployment: `async with TokenCachedRAG.connect(…) as rag`.

        Args:
            corpus: Corpus that is asked.
            data_dir: Folder of a running `forefill up`, which has database, Qdrant, cache and their secrets. None for
                what `FOREFILL_…` settings say.
            llm_client: As above; None for the engine that the settings name, if they name one.
            spec: Token spec; None for the corpus' active one.
            max_context_tokens: Token budget of a context; None for the settings'.
            enable_caching: As above.

        Raises:
            ConfigurationError: The folder is none of a running `forefill up`, there is no database, or a setting is
                malformed or missing.
        """
        stores = open_stores(None if data_dir is None else Path(data_dir), with_engine=llm_client is None)
        settings = stores.settings
        rag = cls(
            stores.searcher,
            stores.engine if llm_client is None else llm_client,
            settings.cache_url,
            cache_ttl=settings.cache_ttl,
            max_context_tokens=settings.max_context_tokens if max_context_tokens is None else max_context_tokens,
            enable_caching=enable_caching,
            corpus=corpus,
            spec=spec,
            settings=settings,
        )
        rag._stores = stores  # its own
        return rag

    async def __aenter__(self) -> Self:
        """Look whether the stores answer, and read corpora and specs.

        Raises:
            ConfigurationError: No `forefill up` runs on the folder; or the database is not at the newest revision.
            Unavailable: The database did not answer.
        """
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close everything."""
        await self.close()

    async def retrieve(self, query: str, top_k: int = 5) -> RetrievedPrompt:
        """Return a question's finished prompt: its ids, and what they are made of. No engine is asked.

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: The query is empty, too long, or cannot be spelled by the spec's tokenizer.
            Unavailable: Search or embedder did not answer.
        """
        found = await self._retrieve(query, top_k=top_k, include_prompt=True)
        presented = retrieved_object(found)
        return RetrievedPrompt(
            token_ids=found.context.token_ids.tolist(),
            prompt_token_ids=presented["prompt_token_ids"].tolist(),
            passages=found.context.passages,
            metadata=presented["metadata"],
        )

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
        self._facts.refresh_soon()
        return {**answer, "prompt_token_ids": answer["prompt_token_ids"].tolist()}

    async def hybrid_search_with_tokens(self, query: str, top_k: int = 5) -> tuple[list[int], dict[str, Any]]:
        """Return the same as `retrieve_tokens`: every search is dense and sparse, fused."""
        return await self.retrieve_tokens(query, top_k=top_k)

    def get_cache_stats(self) -> dict[str, float | None]:
        """Return how lookups of this process went, and how the cache stood a moment ago; asks nobody and never waits.

        Returns:
            `hits`, `misses`, `queries`, `query_hits`, `hit_rate` (percent), `errors`, `avg_hit_latency_ms` and
            `avg_miss_latency_ms` of this process; `total_tokens_cached` by the ledger (without SQL: what this process
            holds); `cache_size_mb`. The last two are None before the first question, and when nobody answered.
        """
        self._facts.refresh_soon()
        tokens = self._cache.tokens_in_memory if self._database is None else self._facts.tokens
        return cache_object(self._cache.stats(), tokens=tokens, used_bytes=self._facts.used_bytes)

    def reset_stats(self) -> None:
        """Count anew from here."""
        self._cache.reset_stats()

    async def clear_cache(self, pattern: str | None = None, refill: bool = True) -> int:  # noqa: FBT001, FBT002  # published
        """Drop entries from the shared cache and from this process, tell SQL, and return how many there were.

        Args:
            pattern: Only entries whose name `ff:FINGERPRINT:PASSAGE_KEY` matches (`*`, `?`, `[…]`); None for all.
            refill: Whether workers are to fill them again; without, coverage stays at what is left.

        Raises:
            Unavailable: The cache or SQL did not answer; some entries may be gone, and what may be is filled again.
        """
        cleared = await clear_shared_cache(self._cache, self._ledger, pattern=pattern, refill=refill)
        await self._facts.refresh()
        return cleared

    async def close(self) -> None:
        """Release what this object made: background work, configuration, connections; not the clients handed in."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._configuration.close()
        await self._switch.close()
        await self._facts.close()
        await self._cache.close()
        for close in self._closers:
            await close()
        if self._stores is not None:
            await self._stores.close()
        if self._database is not None:
            self._database.close()

    async def _start(self) -> None:
        if self._is_closed:
            raise Conflict("this TokenCachedRAG is closed")
        async with self._starting:
            if not self._is_started:
                await self._open()
            self._is_started = True

    async def _open(self) -> None:
        if self._stores is not None:
            await self._stores.require_running(self._database)
        if not self._brought_configuration:
            await self._configuration.start()
        await self._facts.start()

    async def _retrieve(self, query: str, *, top_k: int, include_prompt: bool = False) -> Retrieved:
        await self._start()
        found = await self._retriever.retrieve(self._request(query, top_k=top_k, include_prompt=include_prompt))
        self._facts.refresh_soon()
        return found

    def _request(self, query: str, *, top_k: int, include_prompt: bool = False) -> RetrieveRequest:
        return RetrieveRequest(
            corpus=self._corpus,
            query=query,
            top_k=top_k,
            max_context_tokens=self._max_context_tokens,
            spec=self._spec,
            include_prompt=include_prompt,
        )


def _tokens_cached(database: Database) -> int:
    with database.read() as connection:
        return sum(coverage.tokens for coverage in list_coverage(connection))
