"""What an entry costs: bytes in the cache, time to pack and unpack, time of a lookup beside a bare MGET.

    python -m benchmarks.codec [--folder DIR] [--shared DIR]

Times of things that are compared are taken in turn in one run, so that both sides see the same machine.
`python -m benchmarks.packings` compares the packings that were not chosen.
"""

import argparse
import asyncio
import hashlib
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import numpy as np
import redis.asyncio

from benchmarks.evaluation_text import ENGLISH, evaluation_passages
from pipeline.framing import RaggedIds, TokenIds
from pipeline.token_cache import (
    Dictionary,
    Entry,
    L1Cache,
    PassageEntry,
    RedisTokenReader,
    RedisTokenWriter,
    TokenCache,
    dictionary_of,
    encode_entry,
    entry_key,
)
from pipeline.token_cache.codec import decode_entries, encode_entries
from pipeline.tokenizers.tiktoken_bpe import load_tiktoken
from tests.support.valkey import ValkeyServer

ENCODING = "o200k_base"
FINGERPRINT = "0123456789abcdef" * 2
PASSAGES = 16
ROUNDS = 1_500
MIN_TOKENS, MAX_TOKENS = 410, 490


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where packages are downloaded to; default: a temporary folder")
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        texts = evaluation_passages(arguments.folder or Path(temporary), shared_data=arguments.shared)
    tokenizer = load_tiktoken(ENCODING)
    ids = {name: [tokenizer.encode(text) for text in passages] for name, passages in texts.items()}
    dictionary = dictionary_of(ENCODING)
    alike = [one for name in ENGLISH for one in ids.get(name, []) if MIN_TOKENS <= one.size <= MAX_TOKENS]
    with ValkeyServer() as server:
        print_sizes(server, {"English, ~450 tokens": alike, **ids}, dictionary)
        pairs = pairs_of(alike[::3][:512])
        print_codec_times(pairs, dictionary)
        server.flush()
        asyncio.run(print_lookups(server, pairs, dictionary))


def pairs_of(samples: Sequence[TokenIds]) -> list[PassageEntry]:
    """Return samples as entries under keys of their own."""
    return [(hashlib.sha256(ids.tobytes()).digest()[:16], Entry(ids, right_safe=True)) for ids in samples]


def print_sizes(server: ValkeyServer, ids: dict[str, list[TokenIds]], dictionary: Dictionary) -> None:
    stored_bytes(server, pairs_of(next(iter(ids.values()))), dictionary)  # tables and buffers that stay
    print("bytes per token    tokens/passage   values: dictionary, none   in Valkey, everything: dictionary, none")
    for name, samples in ids.items():
        pairs = pairs_of(samples)
        tokens = sum(entry.token_count for _, entry in dict(pairs).items())
        values, stored = [], []
        for chosen in (dictionary, dictionary_of("")):
            value_bytes = sum(len(encode_entry("k" * 68, entry, dictionary=chosen)) for entry in dict(pairs).values())
            values.append(value_bytes / tokens)
            stored.append(stored_bytes(server, pairs, chosen) / tokens)
        per_passage = tokens / len(dict(pairs))
        print(f"{name:22} {per_passage:8.0f} {values[0]:18.3f} {values[1]:8.3f} {stored[0]:24.3f} {stored[1]:8.3f}")


def stored_bytes(server: ValkeyServer, pairs: Sequence[PassageEntry], dictionary: Dictionary) -> int:
    """Return by how much the server's memory grows with these entries: all of it, keys and tables included."""
    with server.client() as client:
        client.flushall()
        writer = RedisTokenWriter.connect(server.url, dictionary_for=lambda _: dictionary)
        time.sleep(0.2)  # what was flushed is freed in the background
        before = client.info("memory")["used_memory"]
        writer.write(FINGERPRINT, pairs)
        writer.close()
        time.sleep(0.2)  # so is the connection's buffer
        after = client.info("memory")["used_memory"]
    return int(after - before)


def print_codec_times(pairs: Sequence[PassageEntry], dictionary: Dictionary) -> None:
    """Time 16 entries at a time: a longer stretch would measure who else wants the processor."""
    tokens = statistics.mean(entry.token_count for _, entry in pairs)
    for name, chosen in (("dictionary", dictionary), ("none", dictionary_of(""))):
        encode_us, decode_us = [], []
        for turn in range(20):
            for group in groups_of(pairs):
                keys = [entry_key(FINGERPRINT, key) for key, _ in group]
                ids = RaggedIds.of([entry.ids for _, entry in group])
                safe = [entry.right_safe for _, entry in group]
                began = time.perf_counter()
                values = encode_entries(keys, ids, safe, dictionary=chosen)
                between = time.perf_counter()
                decode_entries(keys, values)
                if turn > 0:
                    encode_us.append((between - began) / PASSAGES * 1e6)
                    decode_us.append((time.perf_counter() - between) / PASSAGES * 1e6)
        p50 = [statistics.median(times) for times in (encode_us, decode_us)]
        print(
            f"{name:12} {tokens:.0f} tokens, p50: encode {p50[0]:.1f} µs, decode {p50[1]:.1f} µs in lots of {PASSAGES}"
        )


def groups_of(pairs: Sequence[PassageEntry]) -> list[Sequence[PassageEntry]]:
    """Return full groups of 16."""
    return [pairs[at : at + PASSAGES] for at in range(0, len(pairs) - PASSAGES + 1, PASSAGES)]


async def print_lookups(server: ValkeyServer, pairs: Sequence[PassageEntry], dictionary: Dictionary) -> None:
    """Time lookups of 16 passages to one array beside MGETs of the same bytes, in turn."""
    writer = RedisTokenWriter.connect(server.url, dictionary_for=lambda _: dictionary)
    writer.write(FINGERPRINT, pairs)
    writer.close()
    client = redis.asyncio.Redis.from_url(server.url)
    cold = TokenCache(RedisTokenReader.connect(server.url), l1=L1Cache(0), write_back_ttl_s=60)
    filling = TokenCache(RedisTokenReader.connect(server.url), l1=L1Cache(1 << 17), write_back_ttl_s=60)
    warm = TokenCache(RedisTokenReader.connect(server.url), l1=L1Cache(1 << 26), write_back_ttl_s=60)
    groups = [[key for key, _ in group] for group in groups_of(pairs)]
    redis_keys = {group[0]: [entry_key(FINGERPRINT, key) for key in group] for group in groups}
    sides: dict[str, Callable[[list[bytes]], Awaitable[object]]] = {
        "MGET": lambda keys: client.mget(redis_keys[keys[0]]),
        "L2": lambda keys: one_array(cold, keys),
        "L2, filling L1": lambda keys: one_array(filling, keys),
        "L1": lambda keys: one_array(warm, keys),
    }
    for keys in groups:
        await one_array(warm, keys)
    times_us: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS):
        for name, call in sides.items():
            began = time.perf_counter()
            await call(groups[turn % len(groups)])
            times_us[name].append((time.perf_counter() - began) * 1e6)
    base_us = statistics.median(times_us["MGET"])
    for name, values in times_us.items():
        p50_us = statistics.median(values)
        print(f"{name:16} p50 {p50_us:7.1f} µs   {p50_us / base_us:5.2f} of MGET")
    for cache in (cold, filling, warm):
        await cache.close()
    await client.aclose()


async def one_array(cache: TokenCache, keys: list[bytes]) -> TokenIds:
    """Return the ids of a lookup as the read path wants them."""
    lookup = await cache.lookup(FINGERPRINT, keys)
    return np.concatenate([entry.ids for entry in lookup.entries if entry is not None])


if __name__ == "__main__":
    main()
