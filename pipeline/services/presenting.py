"""From values to the JSON objects that callers see: the same for HTTP answers and for the command line's `--json`.

Pure functions. Times become RFC 3339 text in UTC. Token ids stay one numpy array, which `to_json` writes without
making a Python number of each.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson

from pipeline.context import ContextPassage, ValidationReport, prompt_text, rendered_segments
from pipeline.documents.access import EVERY_CORPUS, ApiKey
from pipeline.documents.corpora import Corpus
from pipeline.framing import segments_as_data
from pipeline.jobs.run_reports import ItemError, RunReport
from pipeline.jobs.store import QueueStatus
from pipeline.services.cache_clearing import Cleared
from pipeline.services.ingestion import DeleteAnswer, IngestAnswer
from pipeline.services.inspection import Coverage, DocumentReport
from pipeline.services.retrieving import Retrieved
from pipeline.services.spec_lifecycle import Activation
from pipeline.services.specs import SpecReport
from pipeline.token_cache import CacheServer, LookupStats

JsonObject: TypeAlias = dict[str, Any]
"""An object that `to_json` can write: JSON values, tuples and numpy arrays."""

_LINE_ENDS = {character.encode(): f"\\u{ord(character):04x}".encode() for character in "\x85\u2028\u2029"}
_MIB = 1024 * 1024


def to_json(value: object) -> bytes:
    """Write a value as compact JSON in UTF-8."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def json_line(value: object) -> bytes:
    """Write a value as JSON that nobody takes for several lines, without a line feed at its end.

    JSON may hold U+2028, U+2029 and U+0085 as they are, and many a library splits lines there.
    """
    line = to_json(value)
    for character, escape in _LINE_ENDS.items():
        line = line.replace(character, escape)
    return line


def time_text(milliseconds: int | None) -> str | None:
    """Return a time as `2026-01-31T08:15:30.125Z`; None stays None.

    Args:
        milliseconds: Since 1970-01-01 UTC.
    """
    if milliseconds is None:
        return None
    moment = datetime.fromtimestamp(milliseconds // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


def page_object(name: str, items: Sequence[JsonObject], *, limit: int, key: str) -> JsonObject:
    """Return one page of a list: `{name: [...], "next": …}`.

    Args:
        name: Of the list.
        items: Of this page.
        limit: Items asked for; a full page has a next one.
        key: Field of the last item that the next page's `after` must say.
    """
    return {name: list(items), "next": items[-1][key] if items and len(items) >= limit else None}


def corpus_object(corpus: Corpus, *, spec_id: str | None, next_run_at: int | None) -> JsonObject:
    """Return a corpus.

    Args:
        corpus: The corpus.
        spec_id: Its active spec.
        next_run_at: When its schedule is due, in milliseconds since 1970; None without one.
    """
    return {
        "name": corpus.name,
        "spec": spec_id,
        "splitter": corpus.splitter,
        "embedder": corpus.embedder,
        "schedule": corpus.schedule,
        "timezone": corpus.timezone,
        "next_run_at": time_text(next_run_at),
    }


def spec_object(report: SpecReport) -> JsonObject:
    """Return a token spec."""
    return {
        "id": report.id,
        "source": report.source,
        "encoding": report.encoding,
        "frame": report.frame,
        "fingerprint": report.fingerprint,
        "library": report.library,
        "status": report.status,
        "coverage": report.coverage,
        "caching_off": report.caching_off,
        "created_at": time_text(report.created_at),
    }


def activation_object(activation: Activation) -> JsonObject:
    """Return what readers of one corpus use from now on, and what was accepted as missing."""
    return {
        "corpus": activation.corpus,
        "spec": activation.spec_id,
        "missing": {
            "documents": activation.missing.documents,
            "dead": activation.missing.dead,
            "examples": list(activation.missing.examples),
        },
    }


def validation_object(report: ValidationReport) -> JsonObject:
    """Return what a spec was validated with when it was added."""
    return {
        "contexts": report.contexts,
        "passages": report.passages,
        "unsafe_passages": report.unsafe_passages,
        "cuts": report.cuts,
        "refused_texts": report.refused_texts,
    }


def key_object(key: ApiKey) -> JsonObject:
    """Return an API key without anything secret; `corpora` is `["*"]` for all."""
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "corpora": [EVERY_CORPUS] if key.corpora is None else sorted(key.corpora),
        "created_at": time_text(key.created_at),
        "revoked_at": time_text(key.revoked_at),
    }


def ingest_object(answer: IngestAnswer) -> JsonObject:
    """Return what became of a PUT of documents."""
    return {
        "run_id": answer.run_id,
        "accepted": answer.accepted,
        "unchanged": answer.unchanged,
        "documents": [
            {"id": document.id, "generation": document.generation, "status": document.status}
            for document in answer.documents
        ],
    }


def delete_object(answer: DeleteAnswer) -> JsonObject:
    """Return what became of a deletion."""
    return {"run_id": answer.run_id, "accepted": answer.accepted, "unknown": answer.unknown}


def document_object(report: DocumentReport) -> JsonObject:
    """Return one document with its passages."""
    return {
        "id": report.id,
        "generation": report.generation,
        "served_generation": report.served_generation,
        "state": report.state,
        "passages": [
            {"ordinal": passage.ordinal, "token_count": passage.token_count, "cached": passage.cached}
            for passage in report.passages
        ],
        "last_error": report.last_error,
    }


def run_object(report: RunReport) -> JsonObject:
    """Return one run."""
    return {
        "id": report.id,
        "kind": report.kind,
        "corpus": report.corpus,
        "spec": report.spec,
        "state": report.state,
        "totals": dict(report.totals),
        "tokens": report.tokens,
        "created_at": time_text(report.created_at),
        "started_at": time_text(report.started_at),
        "finished_at": time_text(report.finished_at),
        "eta_s": report.eta_s,
        "options": dict(report.options),
        "differences": report.differences,
        "nominal_at": time_text(report.nominal_at),
        "sealed": report.sealed,
        "error": report.error,
    }


def run_error_object(error: ItemError) -> JsonObject:
    """Return one document that died in a run, or differed."""
    return {
        "document_id": error.document_id,
        "generation": error.generation,
        "stage": error.stage,
        "error": error.error,
        "attempts": error.attempts,
        "at": time_text(error.at),
    }


def retrieved_object(answer: Retrieved, *, include_text: bool = False) -> JsonObject:
    """Return the answer to one question.

    Args:
        answer: What was found; with its prompt, where that was asked for.
        include_text: Whether to add `prompt_text`, or `prompt_segments` where a frame has control tokens: of the whole
            prompt where that was asked for, else of the context.
    """
    context = answer.context
    timings = answer.timings_ms
    presented: JsonObject = {
        "token_ids": context.token_ids,
        "passages": [_passage_object(passage) for passage in context.passages],
        "metadata": {
            "cache_hit": answer.cache_hit,
            "doc_count": len(context.passages),
            "token_count": len(context.token_ids),
            "latency_ms": answer.latency_ms,
            "timings_ms": {
                "embed": timings.embed,
                "search": timings.search,
                "cache": timings.cache,
                "tokenize": timings.tokenize,
                "assemble": timings.assemble,
            },
            "truncated": context.truncated,
            "spec": answer.spec.spec_id,
        },
    }
    if answer.prompt_token_ids is not None:
        presented["prompt_token_ids"] = answer.prompt_token_ids
        presented["context_tokens"] = len(context.token_ids)
        presented["query_tokens"] = answer.query_tokens
    return presented | _text_of(answer) if include_text else presented


def _passage_object(passage: ContextPassage) -> JsonObject:
    """Return one passage of a prompt; `cut` stands only in one of which the prompt has no more than the beginning."""
    presented: JsonObject = {
        "document_id": passage.document_id,
        "ordinal": passage.ordinal,
        "generation": passage.generation,
        "score": float(passage.score),
        "token_count": passage.token_count,
        "source": passage.source,
    }
    return presented | {"cut": True} if passage.cut else presented


def _text_of(answer: Retrieved) -> JsonObject:
    question = None if answer.prompt_token_ids is None else answer.question
    text = prompt_text(answer.spec, answer.context, question)
    if text is not None:
        return {"prompt_text": text}
    return {"prompt_segments": segments_as_data(rendered_segments(answer.spec, answer.context, question))}


def coverage_object(coverage: Iterable[Coverage]) -> JsonObject:
    """Return the share of covered passages as `{corpus: {spec: share}}`; null where it is unknown."""
    shares: dict[str, dict[str, float | None]] = {}
    for entry in coverage:
        shares.setdefault(entry.corpus, {})[entry.spec] = entry.share
    return shares


def queues_object(queues: Iterable[QueueStatus]) -> JsonObject:
    """Return how queues stand, by name."""
    return {
        queue.name: {
            "depth": queue.depth,
            "oldest_age_s": queue.oldest_age_s,
            "running": queue.running,
            "workers": queue.workers,
        }
        for queue in queues
    }


def cleared_object(cleared: Cleared) -> JsonObject:
    """Return what clearing the cache came to."""
    return {"cleared": cleared.entries, "runs": list(cleared.runs)}


def cache_object(lookups: LookupStats | None, *, tokens: int | None, used_bytes: int | None) -> dict[str, float | None]:
    """Return how lookups went, and how large the cache is.

    Args:
        lookups: What was counted; None for a process without queries.
        tokens: Tokens with an entry; None where nobody knows.
        used_bytes: Memory of the cache; None when it does not answer.
    """
    return {
        "hits": lookups.hits if lookups else 0,
        "misses": lookups.misses if lookups else 0,
        "queries": lookups.queries if lookups else 0,
        "query_hits": lookups.query_hits if lookups else 0,
        "hit_rate": lookups.hit_rate if lookups else 0.0,
        "total_tokens_cached": tokens,
        "cache_size_mb": None if used_bytes is None else used_bytes / _MIB,
        "avg_hit_latency_ms": lookups.avg_hit_latency_ms if lookups else 0.0,
        "avg_miss_latency_ms": lookups.avg_miss_latency_ms if lookups else 0.0,
        "errors": lookups.errors if lookups else 0,
    }


def stats_object(
    *,
    lookups: LookupStats | None,
    server: CacheServer | None,
    coverage: Sequence[Coverage],
    queues: Iterable[QueueStatus],
) -> JsonObject:
    """Return statistics.

    Args:
        lookups: Counts of the answering process since its start or the last reset; None for a process without queries.
        server: What the cache says about itself; None when it does not answer.
        coverage: Of the corpora asked for.
        queues: All of them.
    """
    tokens, used_bytes = sum(entry.tokens for entry in coverage), None if server is None else server.used_bytes
    return {
        **cache_object(lookups, tokens=tokens, used_bytes=used_bytes),
        "coverage": coverage_object(coverage),
        "queues": queues_object(queues),
    }
