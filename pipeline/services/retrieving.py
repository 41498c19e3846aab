"""The read path: question → vectors → hits → entries → exact ids. Asynchronous; never waits for SQL.

A cache that is away, hung, empty or corrupt costs time and never ids: what is missing is tokenized from the point's
text, which must hash to the passage key that the hit named. Some prompts are audited before they are answered; where an
audit found a difference, answers are made of whole texts by the slow oracle alone, until an operator says otherwise.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

from pydantic import JsonValue

from pipeline.context import (
    AssembledContext,
    ContextPassage,
    Order,
    Source,
    assemble,
    prompt_ids,
    reference_context,
)
from pipeline.errors import InvalidInput, NotFound, Unavailable
from pipeline.framing import TokenIds
from pipeline.retrieval.embedding import Embedding, QueryEmbedder
from pipeline.retrieval.vector_index import Hit, VectorSearcher
from pipeline.services.auditing import Auditor, Prompt
from pipeline.services.caching_switch import CachingSwitch
from pipeline.services.configuration import ConfigurationSource, CorpusView
from pipeline.services.own_search import OwnSearcher
from pipeline.services.passage_texts import by_key, fetch_texts, whole_passages
from pipeline.services.searching import search_distinct
from pipeline.telemetry.tracing import TRACER
from pipeline.token_cache import Entry, TokenCache
from pipeline.tokenizers import TokenSpec, encode_passage, load_spec, prepared_spec

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
    include_prompt: bool = False
    """Whether the answer shall have the whole prompt's ids, too."""


@dataclass(slots=True)
class Timings:
    """Milliseconds spent in each part of one query."""

    embed: float = 0.0
    search: float = 0.0
    cache: float = 0.0
    tokenize: float = 0.0
    assemble: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Retrieved:
    """The answer: exact ids and how they came about."""

    spec: TokenSpec
    context: AssembledContext
    question: str
    prompt_token_ids: TokenIds | None = None
    """Ids of the whole prompt, which begin with the context's; None unless they were asked for."""
    latency_ms: float
    timings_ms: Timings = field(default_factory=Timings)

    @property
    def cache_hit(self) -> bool:
        """Whether there is a passage, and the ids of every one came from the cache."""
        passages = self.context.passages
        return bool(passages) and all(passage.source in _FROM_CACHE for passage in passages)

    @property
    def query_tokens(self) -> int | None:
        """Return how many of the prompt's ids are not context; None without a prompt."""
        return None if self.prompt_token_ids is None else len(self.prompt_token_ids) - len(self.context.token_ids)


_FROM_CACHE: Final = ("l1", "l2")

Loaded: TypeAlias = tuple[Entry, Source]

T = TypeVar("T")


class Retriever:
    """Answers questions with token ids. Lives as long as its process; for one event loop."""

    def __init__(
        self,
        *,
        searcher: VectorSearcher | OwnSearcher,
        embedder: QueryEmbedder,
        cache: TokenCache,
        configuration: ConfigurationSource,
        switch: CachingSwitch,
        auditor: Auditor,
        max_query_bytes: int,
        caching_percent: int = 100,
        load: Callable[[str], TokenSpec] = load_spec,
    ) -> None:
        """Remember what is needed.

        Args:
            searcher: Finds passages.
            embedder: Embeds questions.
            cache: Holds entries.
            configuration: Corpora and their active specs.
            switch: Says where an audit switched caching off.
            auditor: Compares a sample of prompts with the reference.
            max_query_bytes: Longest question.
            caching_percent: Share of questions that use the cache.
            load: Loads a spec that a question names beside the active one; called in a thread, may ask SQL.
        """
        self._load_spec = load
        self._searcher = searcher
        self._embedder = embedder
        self._cache = cache
        self._configuration = configuration
        self._switch = switch
        self._auditor = auditor
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
            Unavailable: The spec is not the corpus' active one, was not used before, and SQL is away.
        """
        return await self._spec(await self._configuration.corpus(request.corpus), request)

    async def retrieve(self, request: RetrieveRequest) -> Retrieved:
        """Answer one question.

        Raises:
            NotFound: There is no such corpus.
            InvalidInput: The query is empty, too long, or a parameter is out of range; or a prompt is wanted and the
                spec's tokenizer cannot spell the query.
            Unavailable: Search or embedder did not answer.
        """
        self._check(request)
        with TRACER.start_as_current_span("token_cached_rag.retrieve_tokens") as span:
            began = time.perf_counter()
            view = await self._configuration.corpus(request.corpus)
            spec = await self._spec(view, request)
            self._check_embedder(view)
            timings = Timings()
            may_use_entries = self._switch.allows(view, spec.spec_id)
            context = await (self._from_entries if may_use_entries else self._from_texts)(view, spec, request, timings)
            prompt = None
            if request.include_prompt:
                with _timed(timings, "assemble"):
                    prompt = prompt_ids(spec, context, request.query)
            answer = Retrieved(
                spec=spec,
                context=context,
                question=request.query,
                prompt_token_ids=prompt,
                latency_ms=(time.perf_counter() - began) * 1000,
                timings_ms=timings,
            )
            self._cache.count_query(is_hit=answer.cache_hit)
            span.set_attributes(
                {
                    "cache_hit": answer.cache_hit,
                    "doc_count": len(context.passages),
                    "token_count": len(context.token_ids),
                    "latency_ms": answer.latency_ms,
                }
            )
            return answer

    async def _spec(self, view: CorpusView, request: RetrieveRequest) -> TokenSpec:
        """Return the spec to answer with; the corpus' own was prepared with the configuration."""
        if request.spec is not None and request.spec != view.spec_id:
            return await asyncio.to_thread(self._load_spec, request.spec)
        return prepared_spec(view.fingerprint) or load_spec(view.spec_id)

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
        if not isinstance(self._searcher, OwnSearcher) and view.embedder != self._embedder.name:
            raise Unavailable(
                f"corpus {view.name!r} was embedded with {view.embedder}, this process with {self._embedder.name}",
                service="embedder",
                retry_after_s=60.0,
            )

    async def _from_entries(
        self, view: CorpusView, spec: TokenSpec, request: RetrieveRequest, timings: Timings
    ) -> AssembledContext:
        """Return the context put together from entries."""

        async def load(hits: dict[bytes, Hit]) -> dict[bytes, Loaded]:
            return await self._load(view, spec, hits, timings)

        hits, loaded = await self._find(view, request, timings, load=load)
        with _timed(timings, "assemble"):
            context = _assemble(spec, hits, loaded, request)
        prompt = Prompt(
            view=view,
            spec=spec,
            question=request.query,
            max_context_tokens=request.max_context_tokens,
            order=request.order,
            hits=hits,
            context=context,
        )
        return await self._auditor.audited(prompt)

    async def _from_texts(
        self, view: CorpusView, spec: TokenSpec, request: RetrieveRequest, timings: Timings
    ) -> AssembledContext:
        """Return the context made of whole texts: neither entries nor the assembler are to be trusted."""

        async def load(hits: dict[bytes, Hit]) -> dict[bytes, str]:
            with _timed(timings, "tokenize"):
                return await fetch_texts(self._searcher, view.collection, hits)

        hits, texts = await self._find(view, request, timings, load=load)
        with _timed(timings, "tokenize"):
            return await asyncio.to_thread(
                reference_context,
                spec,
                whole_passages(hits, texts),
                request.query,
                max_context_tokens=request.max_context_tokens,
                order=request.order,
            )

    async def _find(
        self,
        view: CorpusView,
        request: RetrieveRequest,
        timings: Timings,
        *,
        load: Callable[[dict[bytes, Hit]], Awaitable[dict[bytes, T]]],
    ) -> tuple[list[Hit], dict[bytes, T]]:
        """Search, and load what belongs to every hit by its key; what is missing makes the search repeat once.

        A hit's text can be another by now: its document was published in between.
        """
        if isinstance(self._searcher, OwnSearcher):
            with _timed(timings, "search"):
                hits = await self._searcher.find(request.query, top_k=request.top_k)
            return hits, await load(by_key(hits))
        with _timed(timings, "embed"):
            (embedding,) = await self._embedder.embed_queries([request.query])
        hits = await self._search(self._searcher, view, embedding, request, timings)
        loaded = await load(by_key(hits))
        if len(loaded) < len(hits):
            hits = await self._search(self._searcher, view, embedding, request, timings)
            loaded = await load(by_key(hits))
        return [hit for hit in hits if bytes.fromhex(hit.passage_key) in loaded], loaded

    async def _search(
        self,
        searcher: VectorSearcher,
        view: CorpusView,
        embedding: Embedding,
        request: RetrieveRequest,
        timings: Timings,
    ) -> list[Hit]:
        with _timed(timings, "search"):
            try:
                return await search_distinct(
                    searcher,
                    view.collection,
                    embedding,
                    top_k=request.top_k,
                    where=request.where,
                    score_threshold=request.score_threshold,
                )
            except NotFound:
                return []  # nothing was ever published to this corpus

    async def _load(
        self, view: CorpusView, spec: TokenSpec, hits: dict[bytes, Hit], timings: Timings
    ) -> dict[bytes, Loaded]:
        """Return entry and source by passage key; without those whose text no longer hashes to it."""

        async def compute(keys: Sequence[bytes]) -> Mapping[bytes, Entry]:
            with _timed(timings, "tokenize"):
                texts = await fetch_texts(self._searcher, view.collection, {key: hits[key] for key in keys})
                return await asyncio.to_thread(_encode_all, spec, texts)

        if not self._is_sampled():
            return {key: (entry, "off") for key, entry in (await compute(list(hits))).items()}
        with _timed(timings, "cache"):
            lookup = await self._cache.lookup(spec.fingerprint, list(hits))
        lookup = await self._cache.resolve(lookup, compute)
        triples = zip(hits, lookup.entries, lookup.sources, strict=True)
        return {key: (entry, source) for key, entry, source in triples if entry is not None}

    def _is_sampled(self) -> bool:
        return self._caching_percent >= 100 or random.random() * 100 < self._caching_percent


def _encode_all(spec: TokenSpec, texts: Mapping[bytes, str]) -> dict[bytes, Entry]:
    entries = {}
    for key, text in texts.items():
        encoded = encode_passage(spec, text)
        entries[key] = Entry(ids=encoded.ids, right_safe=encoded.right_safe)
    return entries


def _assemble(
    spec: TokenSpec, hits: Sequence[Hit], loaded: Mapping[bytes, Loaded], request: RetrieveRequest
) -> AssembledContext:
    keyed = [(bytes.fromhex(hit.passage_key), hit) for hit in hits]
    passages = [
        ContextPassage(
            passage_key=key,
            ids=loaded[key][0].ids,
            right_safe=loaded[key][0].right_safe,
            document_id=hit.document_id,
            ordinal=hit.ordinal,
            generation=hit.generation,
            score=hit.score,
            source=loaded[key][1],
        )
        for key, hit in keyed
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
