"""Filling by hand with tiktoken: bare, writing nothing; and stored as JSON lists through a Redis pipeline."""

import hashlib
from collections.abc import Sequence

import orjson
import redis
import tiktoken

from benchmarks.texts import batches

THREADS = 2
BATCH = 512


def encode_only(encoding: tiktoken.Encoding, texts: Sequence[str]) -> int:
    """Tokenize with both cores, keep nothing, and return the number of ids."""
    total = 0
    for batch in batches(texts, BATCH):
        total += sum(len(ids) for ids in encoding.encode_ordinary_batch(list(batch), num_threads=THREADS))
    return total


def encode_and_store(encoding: tiktoken.Encoding, texts: Sequence[str], client: "redis.Redis") -> int:
    """Tokenize with both cores and store JSON lists; return how many. The text is in hand: no SQL, no ledger."""
    for batch in batches(texts, BATCH):
        found = encoding.encode_ordinary_batch(list(batch), num_threads=THREADS)
        with client.pipeline(transaction=False) as pipeline:
            for text, ids in zip(batch, found, strict=True):
                pipeline.set(json_key(text), orjson.dumps(ids))
            pipeline.execute()
    return len(texts)


def json_key(text: str) -> str:
    """Return the key that such caches use: a prefix and 64 hexadecimal digits."""
    return f"rag_tokens:{hashlib.sha256(text.encode()).hexdigest()}"
