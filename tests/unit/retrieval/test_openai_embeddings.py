"""The OpenAI-compatible embedder against a small server that answers what such services answer."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ForefillError, InvalidInput, Unavailable
from pipeline.retrieval.bm25 import Bm25Terms
from pipeline.retrieval.openai_embeddings import BATCH_TEXTS, OpenAIPassageEmbedder, OpenAIQueryEmbedder

Answer = tuple[int, dict[str, str], bytes]
Respond = Callable[[dict[str, Any]], Answer]


def vector_of(text: str) -> list[float]:
    return [float(len(text)), 3.0, -4.0]


def vectors(request: dict[str, Any]) -> Answer:
    """What a service should answer, last vector first."""
    data = [{"index": index, "embedding": vector_of(text)} for index, text in enumerate(request["input"])]
    return answer({"object": "list", "model": request["model"], "data": data[::-1]})


def answer(body: object, *, status: int = 200, **headers: str) -> Answer:
    return status, headers, json.dumps(body).encode()


class Service:
    """Answers every POST with `respond` and keeps the requests."""

    def __init__(self) -> None:
        self.respond: Respond = vectors
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.requests.append((self.path, self.headers["authorization"], request))
                status, headers, body = service.respond(request)
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class' name for it
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture
def embedder(service: Service) -> Iterator[OpenAIPassageEmbedder]:
    made = OpenAIPassageEmbedder(
        base_url=service.url, api_key="key", model="small", dimension=3, sparse=Bm25Terms(), timeout_s=5.0
    )
    yield made
    made.close()


def query_embedder(url: str, *, timeout_s: float = 5.0) -> OpenAIQueryEmbedder:
    return OpenAIQueryEmbedder(
        base_url=url, api_key=None, model="small", dimension=3, sparse=Bm25Terms(), timeout_s=timeout_s
    )


def test_passages_get_unit_vectors_in_order_and_terms(service: Service, embedder: OpenAIPassageEmbedder) -> None:
    texts = ["", "copy a file", " \n", "x" * 12, "copy"]
    embeddings = embedder.embed_passages(texts)
    expected: list[list[float]] = [[1, 0, 0], vector_of(texts[1]), [1, 0, 0], vector_of(texts[3]), vector_of(texts[4])]
    for embedding, vector, text in zip(embeddings, expected, texts, strict=True):
        np.testing.assert_allclose(embedding.dense, np.array(vector) / np.linalg.norm(vector), rtol=1e-6)
        assert embedding.sparse == Bm25Terms().encode_passage(text)
    [(path, authorization, request)] = service.requests
    assert (path, authorization) == ("/v1/embeddings", "Bearer key")
    assert request == {"model": "small", "input": [texts[1], texts[3], texts[4]], "encoding_format": "float"}


def test_many_passages_go_in_bounded_batches(service: Service, embedder: OpenAIPassageEmbedder) -> None:
    texts = ["x" * (1 + number) for number in range(2 * BATCH_TEXTS + 1)]
    dense = [embedding.dense for embedding in embedder.embed_passages(texts)]
    assert [len(request["input"]) for _, _, request in service.requests] == [BATCH_TEXTS, BATCH_TEXTS, 1]
    for vector, text in zip(dense, texts, strict=True):
        np.testing.assert_allclose(vector, np.array(vector_of(text)) / np.linalg.norm(vector_of(text)), rtol=1e-6)


def test_nothing_to_embed_asks_nothing(service: Service, embedder: OpenAIPassageEmbedder) -> None:
    assert embedder.embed_passages([]) == []
    assert len(embedder.embed_passages(["", " "])) == 2
    assert service.requests == []


@pytest.mark.parametrize("vector", [[0, 0, 0], [None, 1, 2], [1e308, 1e308, 0]])
def test_vectors_without_a_direction_never_reach_the_index(
    service: Service, embedder: OpenAIPassageEmbedder, vector: list[float | None]
) -> None:
    service.respond = lambda _: answer({"data": [{"index": 0, "embedding": vector}]})
    [embedding] = embedder.embed_passages(["text"])
    assert np.linalg.norm(embedding.dense) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidInput),
        (413, InvalidInput),
        (422, InvalidInput),
        (401, Unavailable),
        (403, Unavailable),
        (404, Unavailable),
        (408, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (503, Unavailable),
    ],
)
def test_refusals_have_their_place_in_the_tree_and_repeat_no_text(
    service: Service, embedder: OpenAIPassageEmbedder, status: int, error: type[ForefillError]
) -> None:
    service.respond = lambda _: answer({"error": {"message": "secret"}}, status=status, x_should_retry="false")
    with pytest.raises(error, match=str(status)) as caught:
        embedder.embed_passages(["secret"])
    assert type(caught.value) is error
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{bad",
        b"null",
        b"[]",
        b"{}",
        b'{"data": []}',
        b'{"data": [{"index": 1, "embedding": [1, 2, 3]}]}',
        b'{"data": [{"index": 0, "embedding": null}]}',
        b'{"data": [{"index": 0, "embedding": ["x", 2, 3]}]}',
        b'{"data": [{"index": 0, "embedding": "AACAPwAAAAAAAAAA"}]}',
    ],
)
def test_an_answer_that_is_no_list_of_vectors_may_be_better_next_time(
    service: Service, embedder: OpenAIPassageEmbedder, body: bytes
) -> None:
    service.respond = lambda _: (200, {}, body)
    with pytest.raises(Unavailable) as caught:
        embedder.embed_passages(["text"])
    assert caught.value.service == "embedder"


def test_vectors_of_another_length_are_no_fault_of_the_text(service: Service, embedder: OpenAIPassageEmbedder) -> None:
    service.respond = lambda _: answer({"data": [{"index": 0, "embedding": [1.0, 2.0]}]})
    with pytest.raises(Unavailable, match="have 2 numbers, not the configured 3"):
        embedder.embed_passages(["text"])


@pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("0", 1), ("1e9", 60), ("soon", 1), ("nan", 1)])
def test_a_wait_asked_for_is_passed_on_within_bounds(
    service: Service, embedder: OpenAIPassageEmbedder, header: str, seconds: float
) -> None:
    service.respond = lambda _: answer({}, status=503, retry_after=header, x_should_retry="false")
    with pytest.raises(Unavailable) as caught:
        embedder.embed_passages(["text"])
    assert caught.value.retry_after_s == seconds


def test_passages_survive_a_short_outage(service: Service, embedder: OpenAIPassageEmbedder) -> None:
    outage = iter([answer({}, status=503, retry_after_ms="1")])
    service.respond = lambda request: next(outage, None) or vectors(request)
    assert len(embedder.embed_passages(["text"])) == 1
    assert len(service.requests) == 2


@pytest.mark.anyio
async def test_questions_are_embedded_as_passages_are(service: Service, embedder: OpenAIPassageEmbedder) -> None:
    queries = query_embedder(service.url)
    embeddings = await queries.embed_queries(["copy a file", ""])
    await queries.aclose()
    passages = embedder.embed_passages(["copy a file", ""])
    for question, passage in zip(embeddings, passages, strict=True):
        np.testing.assert_array_equal(question.dense, passage.dense)
    assert embeddings[0].sparse == Bm25Terms().encode_query("copy a file")
    assert queries.name == embedder.name == f"openai:small-3+{Bm25Terms.name}"
    assert queries.dimension == embedder.dimension == 3


@pytest.mark.anyio
async def test_a_question_is_not_tried_twice(service: Service) -> None:
    service.respond = lambda _: answer({}, status=503)
    queries = query_embedder(service.url)
    with pytest.raises(Unavailable):
        await queries.embed_queries(["text"])
    await queries.aclose()
    assert len(service.requests) == 1


@pytest.mark.anyio
async def test_a_question_does_not_wait_for_a_hung_service(service: Service) -> None:
    over = threading.Event()

    def hang(_: dict[str, Any]) -> Answer:
        over.wait(timeout=30)
        return answer({})

    service.respond = hang
    queries = query_embedder(service.url, timeout_s=0.2)
    try:
        with pytest.raises(Unavailable, match="in time"):
            await queries.embed_queries(["text"])
    finally:
        over.set()
        await queries.aclose()


@pytest.mark.anyio
async def test_a_service_that_is_down_is_unavailable(service: Service) -> None:
    service.close()
    queries = query_embedder(service.url)
    with pytest.raises(Unavailable, match="reached"):
        await queries.embed_queries(["text"])
    await queries.aclose()


def test_a_key_is_never_shown(embedder: OpenAIPassageEmbedder) -> None:
    assert "small" in repr(embedder)
    assert "key" not in repr(embedder)
