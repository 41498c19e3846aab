"""The read path: question → vectors → hits → entries → exact ids. Asynchronous; never waits for SQL.

A cache that is away, hung, empty or corrupt costs time and never ids: what is missing is tokenized from the point's
text, which must hash to the passage key that the hit named.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from pydantic import JsonValue

from pipeline.context import (
    AssembledContext,
    ContextPassage,
    Order,
    Source,
    assemble,
    drop_duplicates,
    drop_older_generations,
)
from pipeline.documents.passages import passage_key
from pipeline.errors import InvalidInput, NotFound, Unavailable
from pipeline.retrieval.embedding import Embedding, QueryEmbedder
from pipeline.retrieval.vector_index import Hit, VectorSearcher
from pipeline.services.configuration import ConfigurationSource, CorpusView
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger
from pipeline.telemetry.tracing import TRACER
from pipeline.token_cache import Entry, TokenCache
from pipeline.tokenizers import TokenSpec, encode_passage, load_spec, prepared_spec

_log = get_logger(__name__)

MAX_TOP_K = 100
"""Most passages one query may ask for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieveRequest:
    """One question."""

    corpus: str
    query: str
    top_k: int = 5
    max_context_tokens: int = 8192
    order: Order = "relevance"
    where: Mapping[str, JsonValue] | None = None
    """Metadata that hits must have: key to value, or to a list of allowed values."""
    score_threshold: float | None = None
    spec: str | None = None
    """Token spec; None for the corpus' active one."""


@dataclass(slots=True)
class Timings:
    """Milliseconds spent in each part of one query."""

    embed: float = 0.0
    search: float = 0.0
    cache: float = 0.0
    tokenize: float = 0.0
    assemble: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """The answer: exact ids and how they came about."""

    spec: TokenSpec
    context: AssembledContext
    cache_hit: bool
    """No passage had to be tokenized for want of its entry."""
    latency_ms: float
    timings_ms: Timings = field(default_factory=Timings)


Loaded: TypeAlias = tuple[Entry, Source]


class Retriever:
    """Answers questions with token ids. Lives as long as its process; for one event loop."""

    def __init__(
        self,
        *,
        searcher: VectorSearcher,
        embedder: QueryEmbedder,
        cache: TokenCache,
        configuration: ConfigurationSource,
        max_query_bytes: int,
        caching_percent: int = 100,
    ) -> None:
        self._searcher = searcher
        self._embedder = embedder
        self._cache = cache
        self._configuration = configuration
        self._max_query_bytes = max_query_bytes
        self._caching_percent = caching_percent

    @property
    def cache(self) -> TokenCache:
        """The token cache, for its statistics."""
        return self._cache

    async def spec(self, request: RetrieveRequest) -> TokenSpec:
        """Return the spec that a question would be answered with now.

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: There is no such spec.
        """
        return _spec(await self._configuration.corpus(request.corpus), request)

    async def retrieve(self, request: RetrieveRequest) -> Retrieved:
        """Answer one question.

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: The query is empty, too long, or a parameter is out of range.
            Unavailable: Search or embedder did not answer.
        """
        self._check(request)
        with TRACER.start_as_current_span("token_cached_rag.retrieve_tokens") as span:
            began = time.perf_counter()
            view = await self._configuration.corpus(request.corpus)
            spec = _spec(view, request)
            self._check_embedder(view)
            timings = Timings()
            hits, loaded = await self._find(view, spec, request, timings)
            with _timed(timings, "assemble"):
                context = _assemble(spec, hits, loaded, request)
            answer = Retrieved(
                spec=spec,
                context=context,
                cache_hit=not any(source == "miss" for _, source in loaded.values()),
                latency_ms=(time.perf_counter() - began) * 1000,
                timings_ms=timings,
            )
            span.set_attributes(
                {
                    "cache_hit": answer.cache_hit,
                    "doc_count": len(context.passages),
                    "token_count": len(context.token_ids),
                    "latency_ms": answer.latency_ms,
                }
            )
            return answer

    def _check(self, request: RetrieveRequest) -> None:
        if not request.query.strip():
            raise InvalidInput("the query is empty", item="query")
        try:
            size_bytes = len(request.query.encode())
        except UnicodeEncodeError as error:
            raise InvalidInput("the query holds a lone surrogate", item="query") from error
        if size_bytes > self._max_query_bytes:
            raise InvalidInput(f"the query is over {self._max_query_bytes:,} bytes", item="query")
        if not 1 <= request.top_k <= MAX_TOP_K:
            raise InvalidInput(f"top_k must be 1 to {MAX_TOP_K}", item="top_k")
        if request.max_context_tokens < 0:
            raise InvalidInput("max_context_tokens must not be negative", item="max_context_tokens")

    def _check_embedder(self, view: CorpusView) -> None:
        if view.embedder != self._embedder.name:
            raise Unavailable(
                f"corpus {view.name!r} was embedded with {view.embedder}, this process with {self._embedder.name}",
                service="embedder",
                retry_after_s=60.0,
            )

    async def _find(
        self, view: CorpusView, spec: TokenSpec, request: RetrieveRequest, timings: Timings
    ) -> tuple[list[Hit], dict[str, Loaded]]:
        """Search, and get the entry of every hit; a hit whose text is another by now makes the search repeat once."""
        with _timed(timings, "embed"):
            (embedding,) = await self._embedder.embed_queries([request.query])
        hits = await self._search(view, embedding, request, timings)
        loaded = await self._load(view, spec, hits, timings)
        if len(loaded) < len(hits):
            hits = await self._search(view, embedding, request, timings)
            loaded = await self._load(view, spec, hits, timings)
        return [hit for hit in hits if hit.passage_key in loaded], loaded

    async def _search(
        self, view: CorpusView, embedding: Embedding, request: RetrieveRequest, timings: Timings
    ) -> list[Hit]:
        with _timed(timings, "search"):
            try:
                found = await self._searcher.search(
                    view.collection,
                    embedding,
                    limit=2 * request.top_k,  # duplicates and older generations are dropped below
                    where=request.where,
                    score_threshold=request.score_threshold,
                )
            except NotFound:
                return []  # nothing was ever published to this corpus
        return drop_duplicates(drop_older_generations(found))[: request.top_k]

    async def _load(
        self, view: CorpusView, spec: TokenSpec, hits: Sequence[Hit], timings: Timings
    ) -> dict[str, Loaded]:
        """Return entry and source by passage key; without those whose text no longer hashes to it."""
        points = {bytes.fromhex(hit.passage_key): hit.point_id for hit in hits}

        async def compute(keys: Sequence[bytes]) -> Mapping[bytes, Entry]:
            with _timed(timings, "tokenize"):
                texts = await self._searcher.texts(view.collection, [points[key] for key in keys])
                found = {key: texts[points[key]] for key in keys if points[key] in texts}
                return await asyncio.to_thread(_encode_all, spec, found)

        if not (view.caching_enabled and self._is_sampled()):
            return {key.hex(): (entry, "off") for key, entry in (await compute(list(points))).items()}
        with _timed(timings, "cache"):
            lookup = await self._cache.lookup(spec.fingerprint, list(points))
        lookup = await self._cache.resolve(lookup, compute)
        triples = zip(points, lookup.entries, lookup.sources, strict=True)
        return {key.hex(): (entry, source) for key, entry, source in triples if entry is not None}

    def _is_sampled(self) -> bool:
        return self._caching_percent >= 100 or random.random() * 100 < self._caching_percent


def _spec(view: CorpusView, request: RetrieveRequest) -> TokenSpec:
    """Return the spec to answer with; the corpus' own was prepared with the configuration."""
    if request.spec is not None and request.spec != view.spec_id:
        return load_spec(request.spec)
    return prepared_spec(view.fingerprint) or load_spec(view.spec_id)


def _encode_all(spec: TokenSpec, texts: Mapping[bytes, str]) -> dict[bytes, Entry]:
    """Tokenize texts that hash to their key; the others are other texts by now."""
    entries = {}
    for key, text in texts.items():
        if passage_key(text) != key:
            metrics.HASH_MISMATCHES.inc()
            _log.warning("retrieve.text_moved", passage_key=key.hex())
            continue
        encoded = encode_passage(spec, text)
        entries[key] = Entry(ids=encoded.ids, right_safe=encoded.right_safe)
    return entries


def _assemble(
    spec: TokenSpec, hits: Sequence[Hit], loaded: Mapping[str, Loaded], request: RetrieveRequest
) -> AssembledContext:
    passages = [
        ContextPassage(
            passage_key=bytes.fromhex(hit.passage_key),
            ids=loaded[hit.passage_key][0].ids,
            right_safe=loaded[hit.passage_key][0].right_safe,
            document_id=hit.document_id,
            ordinal=hit.ordinal,
            generation=hit.generation,
            score=hit.score,
            source=loaded[hit.passage_key][1],
        )
        for hit in hits
    ]
    return assemble(spec, passages, max_context_tokens=request.max_context_tokens, order=request.order)


class _timed:  # noqa: N801  # reads as a statement
    """Adds the time of a block to one field of `Timings`."""

    __slots__ = ("_began", "_name", "_timings")

    def __init__(self, timings: Timings, name: str) -> None:
        self._timings = timings
        self._name = name
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *_error: object) -> None:
        spent_ms = (time.perf_counter() - self._began) * 1000
        setattr(self._timings, self._name, getattr(self._timings, self._name) + spent_ms)
