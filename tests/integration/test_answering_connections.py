"""What the Python class opens to a cache whose client its caller handed in."""

import asyncio
import os
from pathlib import Path

import pytest
import redis.asyncio

from pipeline import TokenCachedRAG
from pipeline.factory import open_index_searcher
from tests.support.api_world import open_api_world
from tests.support.polling import eventually_async

CORPUS = "countries"


def test_the_python_class_closes_its_connections_to_the_cache_and_leaves_its_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("FOREFILL_"):
            monkeypatch.delenv(name)

    async def ask() -> None:
        vectors = open_index_searcher(world.settings)
        client = redis.asyncio.Redis.from_url(world.cache.url, client_name="caller")
        await client.ping()
        rag = TokenCachedRAG(vectors, None, client, corpus=CORPUS)
        await rag.retrieve_tokens("What is the capital of France?", top_k=2)
        assert callers() == 2
        await rag.close()
        await eventually_async(one_is_left)
        await client.ping()
        await client.aclose()
        await vectors.close()

    def callers() -> int:
        with world.cache.client() as admin:
            return [each["name"] for each in admin.client_list()].count("caller")

    async def one_is_left() -> bool:
        return callers() == 1

    with open_api_world(tmp_path) as world:
        world.serve(CORPUS, {"france": "Paris is the capital of France."})
        monkeypatch.setenv("FOREFILL_DATABASE_URL", world.settings.database_url)
        asyncio.run(ask())


def test_clearing_the_cache_from_python_is_told_to_sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def clear(refill: bool) -> int:  # noqa: FBT001  # as it is handed on
        vectors = open_index_searcher(world.settings)
        async with redis.asyncio.Redis.from_url(world.settings.cache_url) as client:
            rag = TokenCachedRAG(vectors, None, client, corpus=CORPUS)
            dropped = await rag.clear_cache(refill=refill)
            await rag.close()
        await vectors.close()
        return dropped

    with open_api_world(tmp_path) as world:
        world.serve(CORPUS, {"france": "Paris is the capital of France."})
        monkeypatch.setenv("FOREFILL_DATABASE_URL", world.settings.database_url)
        monkeypatch.setenv("FOREFILL_CACHE_URL", world.settings.cache_url)
        spec = "o200k_base/plain"
        assert world.get("/v1/stats")["coverage"] == {CORPUS: {spec: 1.0}}
        assert asyncio.run(clear(refill=False)) == 1
        assert world.get("/v1/stats")["coverage"] == {CORPUS: {spec: 0.0}}
        assert asyncio.run(clear(refill=True)) == 0
        world.worker.run_pending_jobs()
        assert world.get("/v1/stats")["coverage"] == {CORPUS: {spec: 1.0}}
        assert world.retrieve(CORPUS, "Paris")["metadata"]["cache_hit"] is True
