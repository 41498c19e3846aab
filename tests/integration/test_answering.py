"""The Python class on real stores: with one's own servers, its own search, its settings, and what it leaves behind."""

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis.asyncio

from pipeline import TokenCachedRAG
from pipeline.errors import ConfigurationError, Conflict, InvalidInput
from pipeline.factory import open_index_searcher
from pipeline.generation import MockClient
from tests.support.api_world import ApiWorld, open_api_world
from tests.support.polling import eventually_async
from tests.support.ports import LOOPBACK, free_port
from tests.support.qdrant import API_KEY
from tests.unit.tokenizers.reference import official

pytestmark = pytest.mark.anyio

CORPUS, SPEC = "countries", "o200k_base/plain"
QUESTION = "What is the capital of France?"
FRANCE = "Paris is the capital of France."
ITALY = "Rome is the capital of Italy."
FIELDS = {
    "hits",
    "misses",
    "hit_rate",
    "total_tokens_cached",
    "cache_size_mb",
    "avg_hit_latency_ms",
    "avg_miss_latency_ms",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    with open_api_world(tmp_path_factory.mktemp("answering")) as started:
        started.serve(CORPUS, {"france": FRANCE, "italy": ITALY})
        yield started


@pytest.fixture
def own_servers(world: ApiWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The environment names the world's servers, and the working directory is empty."""
    clear_environment(monkeypatch)
    monkeypatch.chdir(tmp_path)
    settings = world.settings
    addresses = {"DATABASE": settings.database_url, "CACHE": settings.cache_url, "QDRANT": settings.qdrant_url}
    for name, url in addresses.items():
        monkeypatch.setenv(f"FOREFILL_{name}_URL", url)
    monkeypatch.setenv("FOREFILL_QDRANT_API_KEY", API_KEY)
    monkeypatch.setenv("FOREFILL_ENGINE_KIND", "mock")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is configured."""
    clear_environment(monkeypatch)
    monkeypatch.chdir(tmp_path)


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FOREFILL_"):
            monkeypatch.delenv(name)


def prompt_of(*passages: str, question: str = QUESTION) -> list[int]:
    text = "Answer the question using the documents below.\n\n"
    text += "".join(f"Document {number}\n{passage}\n\n" for number, passage in enumerate(passages, start=1))
    ids: list[int] = official("o200k_base").encode_ordinary(f"{text}Question: {question}\n\nAnswer:")
    return ids


@pytest.mark.usefixtures("own_servers")
async def test_connect_takes_ones_own_servers_from_settings(world: ApiWorld) -> None:
    async with TokenCachedRAG.connect(corpus=CORPUS) as rag:
        prompt = await rag.retrieve(QUESTION, top_k=2)
        assert {passage.document_id for passage in prompt.passages} == {"france", "italy"}
        texts = {"france": FRANCE, "italy": ITALY}
        assert prompt.prompt_token_ids == prompt_of(*(texts[passage.document_id] for passage in prompt.passages))
        assert prompt.prompt_token_ids[: prompt.context_tokens] == prompt.token_ids
        assert prompt.context_tokens + prompt.query_tokens == len(prompt.prompt_token_ids)
        assert prompt.metadata["cache_hit"] is True
        assert all(passage.token_count > 0 and passage.score > 0 for passage in prompt.passages)
        assert (await rag.retrieve_tokens(QUESTION, top_k=2))[0] == prompt.token_ids
        answer = await rag.generate_with_rag(QUESTION, top_k=2)
        assert answer["prompt_token_ids"] == prompt.prompt_token_ids
        assert "mock" in answer["response"]
        stats = rag.get_cache_stats()
    assert set(stats) >= FIELDS
    shown = world.get("/v1/stats")
    assert stats["total_tokens_cached"] == shown["total_tokens_cached"] > 0
    assert stats["cache_size_mb"] == pytest.approx(shown["cache_size_mb"], rel=0.5)
    assert (stats["hits"], stats["misses"], stats["queries"], stats["query_hits"]) == (6, 0, 3, 3)
    with pytest.raises(Conflict, match="closed"):
        await rag.retrieve(QUESTION)


@pytest.mark.usefixtures("own_servers")
@pytest.mark.parametrize("rounds", [8, pytest.param(50, marks=pytest.mark.long)])
async def test_closing_leaves_no_handle_and_no_thread(rounds: int) -> None:
    process = psutil.Process()

    async def once() -> None:
        async with TokenCachedRAG.connect(corpus=CORPUS) as rag:
            await rag.retrieve(QUESTION)

    for _ in range(3):  # threads of the loop's own pool, which stay
        await once()
    gc.collect()
    handles, threads = process.num_fds(), threading.active_count()
    gc.disable()  # nothing may depend on it
    try:
        for _ in range(rounds):
            await once()

        async def all_closed() -> bool:  # the loop closes transports a moment later
            return process.num_fds() <= handles

        await eventually_async(all_closed)
    finally:
        gc.enable()
    assert threading.active_count() <= threads + 3  # the loop's pool may not have been full


@pytest.mark.usefixtures("alone")
async def test_a_folder_without_a_running_up_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"is no data directory: there is no forefill\.env in it"):
        TokenCachedRAG.connect(corpus=CORPUS, data_dir=tmp_path / "data")
    with pytest.raises(ConfigurationError, match=r"there is no database at forefill\.db"):
        TokenCachedRAG.connect(corpus=CORPUS)
    folder = tmp_path / "stopped"
    folder.mkdir()
    (folder / "forefill.db").touch()
    places = {
        "DATABASE_URL": f"sqlite:///{folder / 'forefill.db'}",
        "QDRANT_URL": f"http://{LOOPBACK}:{free_port()}",
        "CACHE_URL": f"redis://:secret@{LOOPBACK}:{free_port()}/0",
    }
    (folder / "forefill.env").write_text("".join(f"FOREFILL_{name}='{value}'\n" for name, value in places.items()))
    with pytest.raises(ConfigurationError, match=r"no `forefill up` runs on .*stopped, or it is not ready") as raised:
        async with TokenCachedRAG.connect(corpus=CORPUS, data_dir=folder):
            pass
    assert "secret" not in str(raised.value)


@pytest.mark.usefixtures("own_servers")
@pytest.mark.parametrize(
    ("settings", "argument", "is_hit"),
    [
        ({}, None, True),
        ({}, True, True),
        ({}, False, False),
        ({"ENABLE_TOKEN_CACHING": "false"}, None, False),
        ({"ENABLE_TOKEN_CACHING": "false"}, True, False),
        ({"TOKEN_CACHING_PERCENT": "0"}, None, False),
    ],
)
async def test_the_settings_switch_holds_for_the_class_too(
    world: ApiWorld, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], *, argument: bool | None, is_hit: bool
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"FOREFILL_{name}", value)
    vectors = open_index_searcher(world.settings)
    client = redis.asyncio.Redis.from_url(world.cache.url)
    rag = TokenCachedRAG(vectors, None, client, enable_caching=argument, corpus=CORPUS)
    try:
        ids, facts = await rag.retrieve_tokens(QUESTION, top_k=2)
        assert facts["cache_hit"] is is_hit
        assert (rag.get_cache_stats()["hits"] != 0) is is_hit
        assert ids == world.retrieve(CORPUS, QUESTION, top_k=2)["token_ids"]
    finally:
        await rag.close()
        await client.aclose()
        await vectors.close()


@dataclass
class Document:
    """A document as somebody else's database returns it."""

    id: str
    content: str


class Library:
    """Somebody else's database."""

    def __init__(self, *documents: Any) -> None:
        self.documents = documents

    async def search(self, query: str, top_k: int) -> list[Any]:
        assert query == QUESTION
        return list(self.documents[:top_k])


class Engine:
    """Somebody else's engine."""

    def __init__(self) -> None:
        self.prompts: list[list[int]] = []

    async def tokenize(self, text: str) -> list[int]:
        return official("o200k_base").encode_ordinary(text)

    async def generate_from_token_ids(self, prompt_token_ids: list[int], max_tokens: int = 16) -> dict[str, Any]:
        self.prompts.append(prompt_token_ids)
        usage = {"prompt_tokens": len(prompt_token_ids), "completion_tokens": 1, "total_tokens": max_tokens}
        return {"text": "Paris", "token_ids": [72782], "usage": usage}


@pytest.mark.usefixtures("alone")
async def test_a_search_of_ones_own_is_answered_from_the_cache_by_content(world: ApiWorld) -> None:
    """What workers filled for the same text is found; what is missing is written back for the next process."""
    fresh = "Nobody has ever tokenized this sentence."
    library, engine = Library({"id": "a", "text": f"{FRANCE}\n"}, Document("b", fresh)), Engine()
    client = redis.asyncio.Redis.from_url(world.cache.url)
    sources = []
    for _ in range(2):
        rag = TokenCachedRAG(library, engine, client, cache_ttl=60)
        prompt = await rag.retrieve(QUESTION, top_k=5)
        assert prompt.prompt_token_ids == prompt_of(FRANCE, fresh)
        assert [passage.document_id for passage in prompt.passages] == ["a", "b"]
        sources.append(([passage.source for passage in prompt.passages], prompt.metadata["cache_hit"]))
        answer = await rag.generate_with_rag(QUESTION, max_tokens=9)
        assert (answer["response"], answer["token_ids"]) == ("Paris", (72782,))
        assert answer["usage"]["total_tokens"] == len(prompt.prompt_token_ids) + 1
        assert engine.prompts[-1] == prompt.prompt_token_ids
        stats = rag.get_cache_stats()
        assert set(stats) >= FIELDS
        assert stats["total_tokens_cached"] == sum(passage.token_count for passage in prompt.passages)
        await rag.close()
    assert sources == [(["l2", "miss"], False), (["l2", "l2"], True)]
    await client.aclose()


@pytest.mark.usefixtures("alone")
async def test_a_search_of_ones_own_that_finds_nothing_leaves_the_frame_and_needs_no_database() -> None:
    rag = TokenCachedRAG(Library(), MockClient(), None)
    ids, facts = await rag.retrieve_tokens(QUESTION)
    assert (ids, facts["cache_hit"], facts["doc_count"], facts["token_count"]) == ([], False, 0, 0)
    answer = await rag.generate_with_rag(QUESTION)
    assert (answer["context_tokens"], answer["prompt_token_ids"]) == (0, prompt_of())
    await rag.close()


@pytest.mark.usefixtures("own_servers")
async def test_a_spec_that_does_not_exist_is_said_by_its_name() -> None:
    rag = TokenCachedRAG(Library(), MockClient(), None, spec="nope/none")
    with pytest.raises(InvalidInput, match="nope/none"):
        await rag.retrieve_tokens(QUESTION)
    await rag.close()


@pytest.mark.usefixtures("alone")
def test_what_cannot_be_used_is_refused_when_it_is_handed_in() -> None:
    for arguments, sentence in (
        ((object(), None, None), "vector_db"),
        ((Library(), object(), None), "llm_client"),
        ((Library(), None, object()), "redis_client must be"),
        ((Library(), None, "http://a:secret@b"), "redis_client: the URL"),
    ):
        with pytest.raises(ConfigurationError, match=sentence) as raised:
            TokenCachedRAG(*arguments)
        assert "secret" not in str(raised.value)


@pytest.mark.usefixtures("own_servers")
async def test_first_questions_at_once_start_it_once() -> None:
    async with TokenCachedRAG.connect(corpus=CORPUS) as rag:
        await asyncio.gather(*(rag.retrieve_tokens(QUESTION) for _ in range(5)))
    names = [task.get_name() for task in asyncio.all_tasks()]
    assert "configuration" not in names
