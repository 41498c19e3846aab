"""Whatever a service answers, its adapter takes bounded time and bytes, keeps the loop free and repeats nothing."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pytest
from celery import Celery

from pipeline.errors import ForefillError, Unavailable
from pipeline.generation import GenerationClient
from pipeline.generation.engines import open_engine
from pipeline.jobs.redis_nudge import NudgeListener
from pipeline.retrieval.bm25 import Bm25Terms
from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.openai_embeddings import OpenAIPassageEmbedder, OpenAIQueryEmbedder
from pipeline.retrieval.qdrant import connect_searcher, connect_writer
from pipeline.retrieval.vector_index import Tombstone
from pipeline.services.diagnosis.redis_servers import inspect_server
from pipeline.settings import Settings
from pipeline.token_cache import RedisTokenReader, RedisTokenWriter
from tests.support.entries import FINGERPRINT, keys_of, numbered_pairs
from tests.support.hostile_server import MARKER, HostileServer, Reply, http_replies, redis_replies
from workers.dispatching import CeleryPublisher

pytestmark = pytest.mark.anyio

TIMEOUT_S = 0.5
ENDS_WITHIN_S = 8.0
"""What a busy machine may make of the time-out; the answers themselves have no end."""
LONGEST_GAP_S = 1.0
"""What a busy machine may make of a few milliseconds; unbounded, parsing took many seconds."""

Calls: TypeAlias = dict[str, Callable[[], Awaitable[object]]]


@dataclass(slots=True)
class Heartbeat:
    """How long the event loop stood still at most, in its process' own time: load is no adapter's fault."""

    longest_gap_s: float = 0.0

    async def beat(self) -> None:
        last = time.process_time()
        while True:
            await asyncio.sleep(0.005)
            now = time.process_time()
            self.longest_gap_s = max(self.longest_gap_s, now - last)
            last = now


@asynccontextmanager
async def heartbeat() -> AsyncIterator[Heartbeat]:
    watched = Heartbeat()
    beating = asyncio.create_task(watched.beat())
    try:
        yield watched
    finally:
        beating.cancel()


def qdrant_calls(url: str, opened: AsyncExitStack) -> Calls:
    searcher = connect_searcher(url, api_key=None, timeout_s=TIMEOUT_S)
    writer = connect_writer(url, api_key=None, timeout_s=TIMEOUT_S)
    opened.push_async_callback(searcher.close)
    opened.callback(writer.close)
    question = Embedding(np.ones(4, dtype=np.float32), SparseVector((1,), (1.0,)))
    point_id = "00000000-0000-0000-0000-000000000001"
    return {
        "search": lambda: searcher.search("c", question, limit=5),
        "texts": lambda: searcher.texts("c", [point_id]),
        "ping": searcher.ping,
        "states": lambda: asyncio.to_thread(writer.states, "c", [point_id]),
        "scroll": lambda: asyncio.to_thread(lambda: list(writer.scroll("c"))),
        "bury": lambda: asyncio.to_thread(writer.bury, "c", [Tombstone(point_id, "d", 1)]),
        "count": lambda: asyncio.to_thread(writer.count, "c"),
        "ensure": lambda: asyncio.to_thread(lambda: writer.ensure_collection("c", dimension=4)),
        "title": lambda: asyncio.to_thread(writer.title),
    }


def embedder_calls(url: str, opened: AsyncExitStack) -> Calls:
    passages = OpenAIPassageEmbedder(
        base_url=url, api_key="k", model="m", dimension=3, sparse=Bm25Terms(), timeout_s=TIMEOUT_S
    )
    queries = OpenAIQueryEmbedder(
        base_url=url, api_key="k", model="m", dimension=3, sparse=Bm25Terms(), timeout_s=TIMEOUT_S
    )
    opened.callback(passages.close)
    opened.push_async_callback(queries.aclose)
    return {
        "passages": lambda: asyncio.to_thread(passages.embed_passages, ["a passage"]),
        "question": lambda: queries.embed_queries(["a question"]),
    }


def engine_calls(url: str, opened: AsyncExitStack) -> Calls:
    calls: Calls = {}
    for kind in ("vllm", "sglang", "llamacpp", "openai", "anthropic"):
        client = open_engine(
            Settings(
                engine_kind=kind,
                engine_url=url,  # type: ignore[arg-type]  # pydantic converts
                engine_api_key="k",  # type: ignore[arg-type]  # pydantic converts
                model="m",
                engine_window_tokens=4096,
                engine_first_token_timeout_s=TIMEOUT_S,
                engine_between_tokens_timeout_s=TIMEOUT_S,
                engine_total_timeout_s=TIMEOUT_S,
            )
        )
        assert client is not None
        opened.push_async_callback(client.aclose)
        calls |= {f"{kind} {name}": call for name, call in calls_of(client).items()}
    return calls


def calls_of(client: GenerationClient) -> Calls:
    async def streamed() -> None:
        async for _ in client.stream_from_token_ids([976, 9029], max_tokens=5):
            pass

    calls: Calls = {
        "whole": lambda: client.generate_from_token_ids([976, 9029], max_tokens=5),
        "streamed": streamed,
    }
    if client.engine.tokenizes:
        calls["tokenize"] = lambda: client.tokenize("text")
    return calls


async def problem_of(call: Callable[[], Awaitable[object]]) -> str | None:
    """Return what is wrong with how a call ends; None if it is as it must be."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(2 * ENDS_WITHIN_S):
            answer = await call()
    except ForefillError as error:
        if time.monotonic() - began > ENDS_WITHIN_S:
            return f"took {time.monotonic() - began:.1f} s"
        if MARKER in str(error) or "pydantic" in str(error) or "validation error" in str(error):
            return f"repeats what it heard: {error}"
        return None if isinstance(error, Unavailable) else f"is no Unavailable: {error!r}"
    except Exception as error:  # noqa: BLE001  # which it is, is what the test reports
        return f"is none of our errors: {error!r}"
    return f"answered {answer!r}" if answer else None  # no ids, no points: nothing that could mislead


QUICK = {
    "silent",
    "drips its body",
    "drips its head",
    "is giant",
    "is many lists",
    "is deep and whole",
    "redirects",
    "is a page of an error",
    "has other types",
    "is truncated",
    "is a bomb",
    "is a list of billions",
    "is an error",
    "has other lengths",
}
"""One of each kind; the others run in `make test-long`."""


def cases(replies: Iterator[tuple[str, Reply]]) -> list[Any]:
    return [pytest.param(reply, id=name, marks=() if name in QUICK else pytest.mark.long) for name, reply in replies]


@pytest.mark.parametrize("reply", cases(http_replies()))
async def test_no_answer_over_http_holds_a_caller_or_reaches_one(reply: Reply) -> None:
    async with AsyncExitStack() as opened:
        server = opened.enter_context(HostileServer(reply))
        calls = {
            **qdrant_calls(server.http_url, opened),
            **embedder_calls(server.http_url, opened),
            **engine_calls(server.http_url, opened),
        }
        async with heartbeat() as watched:
            problems = dict(zip(calls, await asyncio.gather(*map(problem_of, calls.values())), strict=True))
    assert {name: problem for name, problem in problems.items() if problem} == {}
    assert watched.longest_gap_s < LONGEST_GAP_S


def cache_calls(url: str, opened: AsyncExitStack) -> Calls:
    """Return what asks the cache; on fresh connections, so that every reply may also be one to a greeting."""
    writer = RedisTokenWriter.connect(url, timeout_s=TIMEOUT_S)
    reader = RedisTokenReader.connect(url, timeout_s=TIMEOUT_S)
    opened.callback(writer.close)
    opened.push_async_callback(reader.close)
    pairs = numbered_pairs(3, tokens=10)
    keys = keys_of(pairs)
    return {
        "lookup": lambda: reader.read(FINGERPRINT, keys),
        "write back": lambda: reader.write_back(FINGERPRINT, pairs, ttl_s=60),
        "drop": reader.clear,
        "ask": reader.ping,
        "write": lambda: asyncio.to_thread(writer.write, FINGERPRINT, pairs),
        "read": lambda: asyncio.to_thread(writer.read, FINGERPRINT, keys),
        "exists": lambda: asyncio.to_thread(writer.exists, FINGERPRINT, keys),
        "scan": lambda: asyncio.to_thread(lambda: list(writer.scan())),
        "delete": lambda: asyncio.to_thread(writer.delete, FINGERPRINT, keys),
        "keep": lambda: asyncio.to_thread(writer.keep, FINGERPRINT, keys),
        "epoch": lambda: asyncio.to_thread(writer.epoch),
        "server": lambda: asyncio.to_thread(writer.server),
    }


def broker_calls(url: str, opened: AsyncExitStack) -> Calls:
    publisher = CeleryPublisher(Celery(), url)
    listener = NudgeListener(url)
    opened.callback(listener.close)

    async def waited() -> None:
        began = time.monotonic()
        await asyncio.to_thread(listener.wait, TIMEOUT_S)
        if time.monotonic() - began < TIMEOUT_S * 0.9:
            pytest.fail("a nudge that was none")

    return {
        "queue": lambda: asyncio.to_thread(publisher.has_lost_messages, "q"),
        "inspect": lambda: asyncio.to_thread(inspect_server, url, service="broker"),
        "nudge": waited,
    }


@pytest.mark.parametrize("reply", cases(redis_replies()))
async def test_no_reply_of_a_redis_server_holds_a_caller_or_reaches_one(reply: Reply) -> None:
    async with AsyncExitStack() as opened:
        server = opened.enter_context(HostileServer(reply))
        calls = {**cache_calls(server.redis_url, opened), **broker_calls(server.redis_url, opened)}
        async with heartbeat() as watched:
            problems = dict(zip(calls, await asyncio.gather(*map(problem_of, calls.values())), strict=True))
    assert {name: problem for name, problem in problems.items() if problem} == {}
    assert watched.longest_gap_s < LONGEST_GAP_S
