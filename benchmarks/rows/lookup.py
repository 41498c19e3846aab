"""One lookup of 16 passages to one array of ids, against the bare reply and against tokenizing the text instead.

All kinds look up the same passages, in one event loop of the kind that the API uses.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import redis.asyncio
import uvloop

from benchmarks.bench import Bench
from benchmarks.harness import SEED, Measured, percentile
from benchmarks.report import Row, at_most, not_measured
from benchmarks.texts import SPEC, CutText, cut, entries_of, load_gigatoken, load_tiktoken
from pipeline.framing import TokenIds, joined_ids
from pipeline.services.entry_dictionaries import dictionary_for
from pipeline.token_cache import L1Cache, TokenCache, entry_key
from pipeline.token_cache.redis_cache import RedisTokenReader, RedisTokenWriter
from pipeline.tokenizers import load_spec
from tests.support.valkey import ValkeyServer

PASSAGES = 16
_LOOKUPS_A_ROUND = 200
_WARM_UP = 50
_TEXT_KEY = "text:"
_L1_BYTES = 1 << 30

Look = Callable[[Sequence[int]], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of lookup."""

    look: Look
    prepare: Callable[[], None] = lambda: None
    """Done before every lookup, and not timed."""


def measure(bench: Bench) -> list[Row]:
    """Return the rows of L2 and L1."""
    bench.say(f"lookups of {PASSAGES} passages")
    text = cut(bench.documents, limit=bench.sizes.lookup_passages)
    with ValkeyServer() as server:
        _store(server, text)
        found = uvloop.run(_look_up(server.url, text, rounds=bench.sizes.lookup_rounds))
    l2, l1, raw = found["l2"], found["l1"], found["mget"]
    what = f"lookup of {PASSAGES} passages from {{}} to one array, p50"
    rows = [
        Row("lookup.l2.mget", what.format("L2"), "raw redis.asyncio MGET of the same bytes", l2, raw, at_most(2.0)),
        Row("lookup.l1.mget", what.format("L1"), "the same MGET", l1, raw, at_most(0.15)),
        Row("lookup.l2.tiktoken", what.format("L2"), "tiktoken, text in hand", l2, found["tiktoken"], at_most(1 / 6)),
    ]
    against, goal = "MGET of the text, then gigatoken", at_most(1.2)
    if "gigatoken" not in found:
        why = "the package gigatoken is not installed"
        return [*rows, not_measured("lookup.l2.gigatoken", what.format("L2"), against, why=why, goal=goal)]
    return [
        *rows,
        Row("lookup.l2.gigatoken", what.format("L2"), against, l2, found["gigatoken"], goal),
        Row("lookup.l1.gigatoken", what.format("L1"), "gigatoken, text in hand", l1, found["gigatoken, text"]),
    ]


def _store(server: ValkeyServer, text: CutText) -> None:
    with (
        closing(RedisTokenWriter.connect(server.url, dictionary_for=dictionary_for)) as writer,
        server.client() as client,
    ):
        writer.write(load_spec(SPEC).fingerprint, entries_of(text.passages))
        for passage in text.passages:
            client.set(_TEXT_KEY.encode() + passage.key, passage.text.encode())


async def _look_up(url: str, text: CutText, *, rounds: int) -> dict[str, Measured]:
    cold = TokenCache(RedisTokenReader.connect(url, timeout_s=5), l1=L1Cache(_L1_BYTES), write_back_ttl_s=60)
    warm = TokenCache(RedisTokenReader.connect(url, timeout_s=5), l1=L1Cache(_L1_BYTES), write_back_ttl_s=60)
    client = redis.asyncio.Redis.from_url(url)
    try:
        kinds = {**_cached(cold, warm, client, text), **_tokenized(client, text)}
        await warm.lookup(load_spec(SPEC).fingerprint, [passage.key for passage in text.passages])
        return await _in_turn(kinds, len(text.passages), rounds)
    finally:
        await cold.close()
        await warm.close()
        await client.aclose()


def _cached(cold: TokenCache, warm: TokenCache, client: "redis.asyncio.Redis", text: CutText) -> dict[str, _Kind]:
    fingerprint = load_spec(SPEC).fingerprint
    keys = [passage.key for passage in text.passages]
    names = [entry_key(fingerprint, key) for key in keys]

    async def look_up(cache: TokenCache, places: Sequence[int]) -> TokenIds:
        found = await cache.lookup(fingerprint, [keys[place] for place in places])
        return joined_ids([entry.ids for entry in found.entries if entry is not None])

    async def mget(places: Sequence[int]) -> object:
        return await client.mget([names[place] for place in places])

    return {
        "mget": _Kind(mget),
        "l2": _Kind(lambda places: look_up(cold, places), prepare=cold.clear_memory),
        "l1": _Kind(lambda places: look_up(warm, places)),
    }


def _tokenized(client: "redis.asyncio.Redis", text: CutText) -> dict[str, _Kind]:
    texts = text.texts
    names = [_TEXT_KEY.encode() + passage.key for passage in text.passages]
    encoding, fast = load_tiktoken(), load_gigatoken()

    async def with_tiktoken(places: Sequence[int]) -> list[list[int]]:
        return [encoding.encode_ordinary(texts[place]) for place in places]

    kinds = {"tiktoken": _Kind(with_tiktoken)}
    if fast is None:
        return kinds
    for passage in texts:
        fast.encode(passage)  # a process that has been up for a while has met these words

    async def with_gigatoken(places: Sequence[int]) -> object:
        return np.concatenate([fast.encode(texts[place]) for place in places])

    async def fetched_with_gigatoken(places: Sequence[int]) -> object:
        values = await client.mget([names[place] for place in places])
        return np.concatenate([fast.encode(value.decode()) for value in values if isinstance(value, bytes)])

    return {**kinds, "gigatoken": _Kind(fetched_with_gigatoken), "gigatoken, text": _Kind(with_gigatoken)}


async def _in_turn(kinds: Mapping[str, _Kind], passages: int, rounds: int) -> dict[str, Measured]:
    """Time every kind on the same draws, in turn by rounds; return the p50 of each round in microseconds.

    Not in turn by single lookups: a process that has just tokenized for a millisecond waits for its next reply behind
    every other process of the machine.
    """
    draw = random.Random(SEED)
    medians: dict[str, list[float]] = {name: [] for name in kinds}
    order = list(kinds)
    for _ in range(rounds):
        draws = [draw.sample(range(passages), PASSAGES) for _ in range(_WARM_UP + _LOOKUPS_A_ROUND)]
        for name in order:
            taken = [await _time(kinds[name], places) for places in draws]
            medians[name].append(percentile(taken[_WARM_UP:], 0.5))
        order.reverse()
    return {name: Measured(tuple(found), "µs") for name, found in medians.items()}


async def _time(kind: _Kind, places: Sequence[int]) -> float:
    kind.prepare()
    await asyncio.sleep(0)
    began = time.perf_counter()
    await kind.look(places)
    return (time.perf_counter() - began) * 1e6
