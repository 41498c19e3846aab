"""What every client of an engine must do, each against its engine's wire format, faults included."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Literal, TypeAlias

import numpy as np
import pytest
from structlog.testing import capture_logs

from pipeline.errors import ForefillError, InvalidInput, TooLarge, Unavailable
from pipeline.generation import Completion, GenerationClient, Piece
from pipeline.generation.engines import open_engine
from pipeline.settings import Settings
from tests.support.fake_engine import MODEL, WINDOW_TOKENS, FakeEngine, Fault
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK, free_port

pytestmark = pytest.mark.anyio

TOKEN_IN = ("vllm", "sglang", "llamacpp")
HOSTED = ("openai", "anthropic")
ENGINES = (*TOKEN_IN, *HOSTED)
PROMPT = [976, 9029, 328, 10128, 382]
"""`The capital of France is` in o200k_base."""
Mode: TypeAlias = Literal["whole", "streamed"]
MODES: tuple[Mode, ...] = ("whole", "streamed")
TEXT = "The capital of France is"


def settings_of(kind: str, url: str, **timeouts: float) -> Settings:
    quick = {"engine_connect_timeout_s": 5.0, "engine_total_timeout_s": 20.0, **timeouts}
    return Settings(engine_kind=kind, engine_url=url, engine_api_key="secret", model=MODEL, **quick)  # type: ignore[arg-type]  # pydantic checks and converts


def open_client(kind: str, url: str, **timeouts: float) -> GenerationClient:
    client = open_engine(settings_of(kind, url, **timeouts))
    assert client is not None
    return client


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with FakeEngine() as started:
        yield started


@pytest.fixture(params=[*ENGINES, "mock"])
def any_kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def client(engine: FakeEngine, any_kind: str) -> AsyncIterator[GenerationClient]:
    opened = open_client(any_kind, engine.url)
    yield opened
    await opened.aclose()


async def streamed(client: GenerationClient, **options: int) -> tuple[list[Piece], Completion]:
    parts = [part async for part in client.stream_from_token_ids(PROMPT, max_tokens=options.get("max_tokens", 50))]
    pieces, completion = parts[:-1], parts[-1]
    assert isinstance(completion, Completion)
    return [piece for piece in pieces if isinstance(piece, Piece)], completion


async def ask(client: GenerationClient, mode: Mode) -> Completion:
    if mode == "whole":
        return await client.generate_from_token_ids(PROMPT, max_tokens=5)
    return (await streamed(client))[1]


async def test_a_stream_is_the_whole_answer_in_pieces(client: GenerationClient, any_kind: str) -> None:
    whole = await client.generate_from_token_ids(PROMPT, max_tokens=50)
    pieces, completion = await streamed(client)
    assert isinstance(client, GenerationClient)
    assert "".join(piece.text for piece in pieces) == completion.text == whole.text != ""
    assert completion == whole or any_kind == "vllm"
    assert (completion.finish_reason, completion.usage, completion.token_ids) == (
        whole.finish_reason,
        whole.usage,
        whole.token_ids,
    )
    assert whole.finish_reason == "stop"
    assert len(pieces) > 3
    if whole.token_ids is None:
        assert any_kind in HOSTED
        assert all(piece.token_ids is None for piece in pieces)
    else:
        assert [each for piece in pieces for each in piece.token_ids or ()] == list(whole.token_ids)
        assert len(whole.token_ids) == whole.usage.completion_tokens


async def test_tokenize_gives_whole_numbers(client: GenerationClient) -> None:
    assert await client.tokenize(TEXT) == PROMPT
    assert client.engine.estimated_with == ("o200k_base" if client.engine.takes == "text" else None)


@pytest.mark.parametrize("ids", [[], [1, True], [1.0], ["2"], [-1], [2**31], np.array([1.0]), np.array([[1]])], ids=str)
async def test_what_is_no_id_is_refused_and_never_sent(
    client: GenerationClient, engine: FakeEngine, ids: list[int]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await client.generate_from_token_ids(ids, max_tokens=5)
    assert refused.value.item == "prompt_token_ids"
    assert engine.prompts() == []


@pytest.mark.parametrize(
    ("options", "item"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 5.0}, "max_tokens"),
        ({"max_tokens": 5, "temperature": float("nan")}, "temperature"),
        ({"max_tokens": 5, "temperature": 2.1}, "temperature"),
        ({"max_tokens": 5, "temperature": False}, "temperature"),
        ({"max_tokens": 5, "stop": "text"}, "stop"),
        ({"max_tokens": 5, "stop": [""]}, "stop"),
        ({"max_tokens": 5, "stop": ["x"] * 17}, "stop"),
        ({"max_tokens": 5, "stop_token_ids": [True]}, "stop_token_ids"),
    ],
)
async def test_parameters_out_of_range_are_named_and_never_sent(
    client: GenerationClient, engine: FakeEngine, options: dict[str, object], item: str
) -> None:
    for ask in (client.generate_from_token_ids, _drained(client)):
        with pytest.raises(InvalidInput) as refused:
            await ask(PROMPT, **options)  # type: ignore[arg-type]  # that is the point
        assert refused.value.item == item
    assert engine.prompts() == []


def _drained(client: GenerationClient):  # type: ignore[no-untyped-def]  # the shape of `generate_from_token_ids`
    async def drain(ids: list[int], **options: object) -> None:
        async for _ in client.stream_from_token_ids(ids, **options):  # type: ignore[arg-type]  # as above
            pass

    return drain


@pytest.mark.parametrize("mode", MODES)
async def test_the_length_of_the_answer_is_always_said(engine: FakeEngine, kind: str, mode: Mode) -> None:
    client = open_client(kind, engine.url)
    if mode == "streamed":
        await streamed(client, max_tokens=33)
    else:
        await client.generate_from_token_ids(PROMPT, max_tokens=33, temperature=0, stop=["\n\n"], stop_token_ids=[7])
    await client.aclose()
    (seen,) = engine.prompts()
    body = seen.body
    sampling = body.get("sampling_params", body)
    names = ("max_tokens", "max_new_tokens", "n_predict", "max_completion_tokens")
    assert [sampling[name] for name in names if name in sampling] == [33]
    assert body.get("stream", False) is (mode == "streamed")
    if kind in TOKEN_IN:
        assert body.get("prompt", body.get("input_ids")) == PROMPT
    else:
        assert body["messages"] == [{"role": "user", "content": TEXT}]
    if mode == "whole":
        assert sampling["temperature"] == 0
        assert sampling.get("stop", sampling.get("stop_sequences")) == ["\n\n"]
        assert sampling.get("stop_token_ids") == ([7] if kind in {"vllm", "sglang"} else None)
    if kind == "vllm":
        assert body["return_token_ids"] is True
    assert seen.headers.get("x-api-key" if kind == "anthropic" else "authorization") in ("secret", "Bearer secret")


@pytest.mark.parametrize("slice_bytes", [1, 2, 7])
async def test_a_character_cut_by_the_network_comes_whole(engine: FakeEngine, kind: str, slice_bytes: int) -> None:
    engine.slice_bytes = slice_bytes
    client = open_client(kind, engine.url)
    pieces, completion = await streamed(client)
    await client.aclose()
    assert [piece.text for piece in pieces] == list(engine.texts)
    assert completion.text == engine.text


async def test_sglang_may_send_what_is_new_or_everything_so_far(engine: FakeEngine) -> None:
    client = open_client("sglang", engine.url)
    for incremental in (False, True):
        engine.incremental = incremental
        pieces, completion = await streamed(client)
        assert [piece.text for piece in pieces] == list(engine.texts)
        assert completion.token_ids == tuple(engine.ids)
    await client.aclose()


@pytest.mark.parametrize("kind", TOKEN_IN)
@pytest.mark.parametrize("mode", MODES)
async def test_an_engine_that_adds_an_id_of_its_own_is_found_out(engine: FakeEngine, kind: str, mode: Mode) -> None:
    engine.bos = 1
    client = open_client(kind, engine.url)
    with pytest.raises(Unavailable, match="6 prompt tokens, 5 were sent"):
        await ask(client, mode)
    await client.aclose()


@pytest.mark.parametrize("kind", TOKEN_IN)
async def test_a_prompt_that_leaves_no_room_for_its_answer_is_refused_and_not_capped(
    engine: FakeEngine, kind: str
) -> None:
    client = open_client(kind, engine.url)
    assert (await client.limits()).window_tokens == WINDOW_TOKENS
    await client.generate_from_token_ids(PROMPT, max_tokens=WINDOW_TOKENS - len(PROMPT))
    with pytest.raises(InvalidInput, match="4,096"):
        await client.generate_from_token_ids(PROMPT, max_tokens=WINDOW_TOKENS - len(PROMPT) + 1)
    await client.aclose()
    assert len(engine.prompts()) == 1


async def test_ids_outside_the_engines_vocabulary_are_not_sent(engine: FakeEngine) -> None:
    client = open_client("llamacpp", engine.url)
    with pytest.raises(InvalidInput, match="vocabulary"):
        await client.generate_from_token_ids([*PROMPT, 999_999], max_tokens=5)
    await client.aclose()
    assert engine.prompts() == []


FAULTS: dict[Fault, str] = {
    "hang": "sent no (first token|answer)",
    "stall": "sent no (next token|answer)",
    "error_event": "500|cannot be read|finished",
    "reset": "broke",
    "end_early": "broke|lacks|cannot be read",
    "garbage": "broke|lacks|finished|cannot be read",
    "not_json": "cannot be read|broke",
    "not_events": "no stream|broke|cannot be read|finished",
}


@pytest.mark.parametrize(
    ("fault", "mode"),
    [(fault, mode) for fault in FAULTS for mode in MODES if (fault, mode) != ("not_events", "whole")],
)
async def test_whatever_an_engine_does_is_one_clear_error_in_time(
    engine: FakeEngine, kind: str, fault: Fault, mode: Mode
) -> None:
    engine.fault = fault
    client = open_client(
        kind,
        engine.url,
        engine_first_token_timeout_s=0.5,
        engine_between_tokens_timeout_s=0.5,
        engine_total_timeout_s=5.0 if mode == "streamed" else 0.7,
    )
    with pytest.raises(Unavailable, match=FAULTS[fault]) as raised:
        async with asyncio.timeout(4):
            await ask(client, mode)
    await client.aclose()
    assert raised.value.service == "engine"
    assert "secret" not in str(raised.value)
    assert len(engine.prompts()) == 1, "nothing is sent twice"
    if fault in {"hang", "stall"}:
        assert engine.left.wait(5), "the engine must learn that nobody listens"


async def test_a_refusal_inside_a_stream_is_the_callers_to_mend(engine: FakeEngine, kind: str) -> None:
    engine.fault = "refusal_event"
    client = open_client(kind, engine.url)
    with capture_logs() as logs, pytest.raises(InvalidInput, match="refused the prompt") as raised:
        await streamed(client)
    await client.aclose()
    assert "it broke" not in str(raised.value)
    assert "it broke" in str(logs)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("status", "expected", "sentence"),
    [
        (400, InvalidInput, "refused the prompt"),
        (413, TooLarge, "too large"),
        (401, Unavailable, "FOREFILL_ENGINE_API_KEY"),
        (404, Unavailable, "FOREFILL_MODEL"),
        (429, Unavailable, "429"),
        (503, Unavailable, "503"),
        (529, Unavailable, "529"),
        (302, Unavailable, "302"),
    ],
)
async def test_statuses_mean_the_same_whoever_says_them(
    engine: FakeEngine, kind: str, status: int, expected: type[ForefillError], sentence: str, mode: Mode
) -> None:
    engine.status = (status, "too long", {"retry-after": "7"})
    client = open_client(kind, engine.url)
    with capture_logs() as logs, pytest.raises(expected, match=sentence) as raised:
        await ask(client, mode)
    await client.aclose()
    assert type(raised.value) is expected
    assert "too long" not in str(raised.value)
    assert status == 302 or "too long" in str(logs)
    if status in {429, 503} and isinstance(raised.value, Unavailable):
        assert raised.value.retry_after_s == 7


async def test_an_engine_that_is_down_is_unavailable(kind: str) -> None:
    client = open_client(kind, f"http://{LOOPBACK}:{free_port()}")
    with pytest.raises(Unavailable, match="cannot be reached"):
        await client.generate_from_token_ids(PROMPT, max_tokens=5)
    with pytest.raises(Unavailable, match="cannot be reached"):
        await streamed(client)
    await client.aclose()


async def test_leaving_a_stream_closes_the_connection(engine: FakeEngine, kind: str) -> None:
    engine.fault = "stall"
    client = open_client(kind, engine.url)
    async with aclosing(client.stream_from_token_ids(PROMPT, max_tokens=5)) as parts:
        assert isinstance(await anext(parts), Piece)
        assert not engine.left.is_set()
    assert await asyncio.to_thread(engine.left.wait, 5)
    await client.aclose()


@pytest.mark.parametrize("mode", MODES)
async def test_cancelling_closes_the_connection(engine: FakeEngine, kind: str, mode: Mode) -> None:
    engine.fault = "hang"
    client = open_client(kind, engine.url)
    task = asyncio.ensure_future(ask(client, mode))
    await asyncio.to_thread(eventually, engine.prompts)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(engine.left.wait, 5)
    await client.aclose()
