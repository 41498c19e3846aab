"""One lookup of 16 passages to one array of ids, against the bare reply and against tokenizing the text instead.

All kinds look up the same passages, in one event loop of the kind that the API uses. Passages are drawn in two ways: by
Zipf's law, as questions ask for them, and evenly, which is the worst that can be asked of a processor's caches: nearly
each of them is then somewhere in tens of megabytes that nobody has touched for a while.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import redis.asyncio
import uvloop

from benchmarks.asking import zipf_stream
from benchmarks.bench import Bench
from benchmarks.corpus import Document
from benchmarks.harness import SEED, Measured, percentile
from benchmarks.report import Row, at_most, not_measured
from benchmarks.texts import SPEC, CutText, batches, cut, entries_of, load_gigatoken, load_tiktoken
from pipeline.framing import TokenIds
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.token_cache import L1Cache, PassageEntry, TokenCache, entry_key, joined_entries
from pipeline.token_cache.redis_cache import RedisTokenReader, RedisTokenWriter
from pipeline.tokenizers import load_spec
from tests.support.valkey import ValkeyServer

PASSAGES = 16
_IDS = range(400, 501)
"""Of a passage: what full ones of English have."""
_BATCH = 256
_LOOKUPS_A_ROUND = 200
_WARM_UP = 50
_TEXT_KEY = "text:"
_L1_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of lookup."""

    look: Callable[[list[Any]], Awaitable[object]]
    """Takes what it asks by of each passage: a key, a name in Redis, or the text."""
    asked_by: Sequence[Any]
    prepare: Callable[[], None] = lambda: None
    """Done before every lookup, and not timed."""


@dataclass(frozen=True, slots=True)
class _Drawing:
    """How the passages of lookups are drawn."""

    key: str
    """Of its rows."""
    said: str
    draw: Callable[[int], Iterator[Sequence[int]]]
    """Yields the places of 16 of so many passages, without end."""


def measure(bench: Bench) -> Iterator[Row]:
    """Yield the rows of L2 and L1, of one drawing after the other."""
    bench.say(f"lookups of {PASSAGES} passages")
    text, entries = _full_passages(bench.documents, limit=bench.sizes.lookup_passages)
    with ValkeyServer() as server:
        _store(server, text, entries)
        for drawing in _DRAWINGS:
            found = uvloop.run(_look_up(server.url, text, drawing, rounds=bench.sizes.lookup_rounds))
            yield from _rows(drawing, found, len(text.passages))


def _rows(drawing: _Drawing, found: Mapping[str, Measured], passages: int) -> Iterator[Row]:
    l2, l1, raw = found["l2"], found["l1"], found["mget"]
    from_l2, from_l1 = (
        f"lookup of {PASSAGES} of {passages:,} passages (450 ids), {drawing.said}, from {level} to one array, p50"
        for level in ("L2", "L1")
    )
    key = drawing.key
    yield Row(f"{key}.l2.mget", from_l2, "raw redis.asyncio MGET of the same bytes", l2, raw, at_most(2.0))
    yield Row(f"{key}.l1.mget", from_l1, "the same MGET", l1, raw, at_most(0.15))
    yield Row(
        f"{key}.l2.tiktoken",
        from_l2,
        "tiktoken, text in hand",
        l2,
        found["tiktoken"],
        at_most(1 / 6),
    )
    against, goal = "MGET of the text, then gigatoken", at_most(1.2)
    if "gigatoken" not in found:
        why = "the package gigatoken is not installed"
        yield not_measured(f"{key}.l2.gigatoken", from_l2, against, why=why, goal=goal)
        return
    yield Row(f"{key}.l2.gigatoken", from_l2, against, l2, found["gigatoken"], goal)
    yield Row(f"{key}.l1.gigatoken", from_l1, "gigatoken, text in hand", l1, found["gigatoken, text"])


def _by_zipf(passages: int) -> Iterator[Sequence[int]]:
    order = random.Random(SEED).sample(range(passages), passages)
    stream = zipf_stream(order)
    while True:
        drawn: set[int] = set()
        while len(drawn) < PASSAGES:
            drawn.add(next(stream))
        yield list(drawn)


def _evenly(passages: int) -> Iterator[Sequence[int]]:
    draw = random.Random(SEED)
    while True:
        yield draw.sample(range(passages), PASSAGES)


_DRAWINGS = (
    _Drawing("lookup", "asked for by Zipf's law", _by_zipf),
    _Drawing("lookup.even", "all asked for alike", _evenly),
)


def _full_passages(documents: Sequence[Document], *, limit: int) -> tuple[CutText, list[PassageEntry]]:
    """Return passages of about 450 ids, drawn from all of the text, and their entries."""
    passages = list(cut(documents).passages)
    random.Random(SEED).shuffle(passages)
    every = (
        (one, pair) for some in batches(passages, _BATCH) for one, pair in zip(some, entries_of(some), strict=True)
    )
    chosen = list(islice((found for found in every if found[1][1].token_count in _IDS), limit))
    return CutText(tuple(passage for passage, _ in chosen)), [pair for _, pair in chosen]


def _store(server: ValkeyServer, text: CutText, entries: Sequence[PassageEntry]) -> None:
    with (
        closing(RedisTokenWriter.connect(server.url, dictionary_for=dictionary_for)) as writer,
        server.client() as client,
    ):
        writer.write(load_spec(SPEC).fingerprint, entries)
        for passage in text.passages:
            client.set(_TEXT_KEY.encode() + passage.key, passage.text.encode())


async def _look_up(url: str, text: CutText, drawing: _Drawing, *, rounds: int) -> dict[str, Measured]:
    cold = TokenCache(RedisTokenReader.connect(url, timeout_s=5), l1=L1Cache(_L1_BYTES), write_back_ttl_s=60)
    warm = TokenCache(RedisTokenReader.connect(url, timeout_s=5), l1=L1Cache(_L1_BYTES), write_back_ttl_s=60)
    client = redis.asyncio.Redis.from_url(url)
    try:
        kinds = {**_cached(cold, warm, client, text), **_tokenized(client, text)}
        await warm.lookup(load_spec(SPEC).fingerprint, [passage.key for passage in text.passages])
        return await _in_turn(kinds, drawing.draw(len(text.passages)), rounds)
    finally:
        await cold.close()
        await warm.close()
        await client.aclose()


def _cached(cold: TokenCache, warm: TokenCache, client: "redis.asyncio.Redis", text: CutText) -> dict[str, _Kind]:
    fingerprint = load_spec(SPEC).fingerprint
    keys = [passage.key for passage in text.passages]
    names = [entry_key(fingerprint, key) for key in keys]

    async def look_up(cache: TokenCache, asked: list[bytes]) -> TokenIds:
        found = await cache.lookup(fingerprint, asked)
        return joined_entries(found.entries)

    return {
        "mget": _Kind(client.mget, names),
        "l2": _Kind(partial(look_up, cold), keys, prepare=cold.clear_memory),
        "l1": _Kind(partial(look_up, warm), keys),
    }


def _tokenized(client: "redis.asyncio.Redis", text: CutText) -> dict[str, _Kind]:
    texts = text.texts
    names = [_TEXT_KEY.encode() + passage.key for passage in text.passages]
    encoding, fast = load_tiktoken(), load_gigatoken()

    async def with_tiktoken(asked: list[str]) -> list[list[int]]:
        return [encoding.encode_ordinary(text) for text in asked]

    kinds = {"tiktoken": _Kind(with_tiktoken, texts)}
    if fast is None:
        return kinds
    for passage in texts:
        fast.encode(passage)  # a process that has been up for a while has met these words

    async def with_gigatoken(asked: list[str]) -> object:
        return np.concatenate([fast.encode(text) for text in asked])

    async def fetched_with_gigatoken(asked: list[bytes]) -> object:
        values = await client.mget(asked)
        return np.concatenate([fast.encode(value.decode()) for value in values if isinstance(value, bytes)])

    return {
        **kinds,
        "gigatoken": _Kind(fetched_with_gigatoken, names),
        "gigatoken, text": _Kind(with_gigatoken, texts),
    }


async def _in_turn(kinds: Mapping[str, _Kind], drawn: Iterator[Sequence[int]], rounds: int) -> dict[str, Measured]:
    """Time every kind on the same draws, in turn by rounds; return the p50 of each round in microseconds.

    Not in turn by single lookups: a process that has just tokenized for a millisecond waits for its next reply behind
    every other process of the machine.
    """
    medians: dict[str, list[float]] = {name: [] for name in kinds}
    order = list(kinds)
    for _ in range(rounds):
        draws = list(islice(drawn, _WARM_UP + _LOOKUPS_A_ROUND))
        for name in order:
            taken = [await _time(kinds[name], places) for places in draws]
            medians[name].append(percentile(taken[_WARM_UP:], 0.5))
        order.reverse()
    return {name: Measured(tuple(found), "µs") for name, found in medians.items()}


async def _time(kind: _Kind, places: Sequence[int]) -> float:
    kind.prepare()
    asked = [kind.asked_by[place] for place in places]
    await asyncio.sleep(0)
    began = time.perf_counter()
    await kind.look(asked)
    return (time.perf_counter() - began) * 1e6
