"""Bytes a token in the cache server, all overhead included, on English text that no dictionary was trained on."""

from collections.abc import Iterator
from contextlib import closing

import orjson

from benchmarks.bench import Bench
from benchmarks.debian import HELD_OUT
from benchmarks.harness import Measured
from benchmarks.report import Row, at_most, not_measured
from benchmarks.rivals.tiktoken_fill import json_key
from benchmarks.texts import SPEC, CutText, batches, cut, entries_of
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.token_cache import PassageEntry
from pipeline.token_cache.redis_cache import RedisTokenWriter
from pipeline.tokenizers import load_spec
from tests.support.valkey import ValkeyServer

_KEY = "memory.bytes_per_token"
_GOAL = at_most(2.05, "bytes")
_BATCH = 512


def measure(bench: Bench) -> Iterator[Row]:
    """Yield the one row: a figure with a bound of its own, beside what JSON lists take."""
    what, against = "bytes per token in Valkey, no HMAC", "JSON list under rag_tokens: + 64 hex digits"
    held_out = [package for package in HELD_OUT if package in {part.package for part in bench.corpus.parts}]
    if not held_out:
        why = f"the text has none of the packages {', '.join(HELD_OUT)}, which dictionaries must not have seen"
        yield not_measured(_KEY, what, against, why=why, goal=_GOAL)
        return
    bench.say("bytes per token")
    text = cut(bench.corpus.documents(packages=held_out), limit=bench.sizes.memory_passages)
    pairs = entries_of(text.passages)
    tokens = sum(entry.token_count for _, entry in pairs)
    ours = Measured((_stored_bytes_of_entries(pairs) / tokens,), "bytes")
    theirs = Measured((_stored_bytes_of_json(text, pairs) / tokens,), "bytes")
    remark = f"{len(pairs):,} passages of {tokens / len(pairs):.0f} tokens, from {', '.join(held_out)}"
    compared = f"{remark}; JSON lists take {theirs.median:.2f} bytes, {theirs.per(ours):.1f} times as many"
    yield Row(_KEY, what, f"{against}: {theirs.median:.2f}", ours, goal=_GOAL, remark=compared)
    yield Row(f"{_KEY}.json", what, against, ours, theirs)


def _stored_bytes_of_entries(pairs: list[PassageEntry]) -> int:
    with (
        ValkeyServer() as server,
        closing(RedisTokenWriter.connect(server.url, dictionary_for=dictionary_for)) as writer,
    ):
        writer.write(load_spec(SPEC).fingerprint, pairs[:1])
        before = writer.server().used_bytes
        writer.write(load_spec(SPEC).fingerprint, pairs)
        return writer.server().used_bytes - before


def _stored_bytes_of_json(text: CutText, pairs: list[PassageEntry]) -> int:
    values = {json_key(passage): entry for passage, (_, entry) in zip(text.texts, pairs, strict=True)}
    with ValkeyServer() as server, closing(RedisTokenWriter.connect(server.url)) as info, server.client() as client:
        client.set("first", b"")
        before = info.server().used_bytes
        for keys in batches(list(values), _BATCH):
            client.mset({key: orjson.dumps(values[key].ids.tolist()) for key in keys})
        return info.server().used_bytes - before
