"""LlamaIndex' IngestionPipeline with its Redis cache, run by the interpreter of an environment of its own.

Its Redis store wants an older client than ours. A transformation tokenizes with both cores; no SQL. `nodes`: every text
is a ready-made node. `documents`: every text is a document, which its `SentenceSplitter` cuts first. Prints one JSON
object: seconds, and how many nodes came out.

    python llamaindex_pipeline.py nodes|documents TEXTS.jsonl RANKS.json REDIS_HOST REDIS_PORT
"""

import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

import tiktoken
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, TextNode, TransformComponent
from llama_index.storage.kvstore.redis import RedisKVStore

BATCH = 512
CHUNK_TOKENS = 512
_WARM_UP = 32


class Tokenize(TransformComponent):  # type: ignore[misc]  # the rival's types are not installed here
    """Puts the ids of every node into its metadata."""

    encoding: Any = None

    def __call__(self, nodes: Any, **_options: Any) -> Any:
        """Tokenize nodes."""
        texts = [node.text for node in nodes]
        for node, ids in zip(nodes, self.encoding.encode_ordinary_batch(texts, num_threads=2), strict=True):
            node.metadata["token_ids"] = ids
        return nodes

    def to_dict(self, **_options: Any) -> dict[str, Any]:
        """Return what the cache's key is made of besides the nodes."""
        return {"class": "Tokenize", "encoding": self.encoding.name}


def main(kind: str, texts: Path, ranks: Path, host: str, port: str) -> None:
    """Fill the cache once and print how long it took."""
    definition = json.loads(ranks.read_text(encoding="utf-8"))
    merges = {base64.b64decode(token): rank for token, rank in definition["ranks"]}
    encoding = tiktoken.Encoding(
        definition["name"], pat_str=definition["pattern"], mergeable_ranks=merges, special_tokens={}
    )
    given = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    cache = IngestionCache(
        cache=RedisKVStore.from_host_and_port(host, int(port)), collection=f"bench-{time.monotonic_ns()}"
    )
    tokenize = Tokenize(encoding=encoding)
    splitter = SentenceSplitter(chunk_size=CHUNK_TOKENS, chunk_overlap=0, tokenizer=encoding.encode_ordinary)
    transformations = {"nodes": [tokenize], "documents": [splitter, tokenize]}[kind]
    pipeline = IngestionPipeline(transformations=transformations, cache=cache)
    kept = {"nodes": TextNode, "documents": Document}[kind]
    pipeline.run(**{kind: [kept(text=f"warm up {number}") for number in range(_WARM_UP)]})
    began = time.perf_counter()
    done = 0
    for start in range(0, len(given), BATCH):
        batch = given[start : start + BATCH]
        done += len(
            pipeline.run(**{kind: [kept(id_=str(start + place), text=text) for place, text in enumerate(batch)]})
        )
    print(json.dumps({"seconds": time.perf_counter() - began, "nodes": done}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])
