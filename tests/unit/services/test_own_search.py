"""A database of the caller's own: every shape that is promised is taken, everything else is one sentence."""

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.documents.passages import passage_key
from pipeline.errors import ConfigurationError, ForefillError, InvalidInput, TooLarge, Unavailable
from pipeline.services import own_search
from pipeline.services.own_search import MAX_DOCUMENT_BYTES, OwnSearcher

pytestmark = pytest.mark.anyio

PARIS, ROME = "Paris is in France.", "Rome is in Italy."
LONG_S = 30.0


@dataclass
class Document:
    """Attributes instead of keys."""

    id: Any
    content: Any
    score: Any = None


MAPPINGS = [{"id": "p", "text": PARIS, "score": 0.5, "metadata": {"lang": "fr"}}, {"id": 7, "content": f" {ROME}\n"}]
OBJECTS = [Document("p", PARIS, 0.5), Document(7, ROME)]


class Asynchronous:
    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[tuple[str, int]] = []

    async def search(self, query: str, top_k: int) -> Any:
        self.asked.append((query, top_k))
        return self.answer() if callable(self.answer) else self.answer


class Synchronous(Asynchronous):
    def search(self, query: str, *, top_k: int = 3) -> Any:  # type: ignore[override]  # the other shape
        self.asked.append((query, top_k))
        return self.answer() if callable(self.answer) else self.answer


class OtherName(Asynchronous):
    async def search(self, query: str, k: int) -> Any:  # the number has another name
        self.asked.append((query, k))
        return self.answer


class Generating(Asynchronous):
    async def search(self, query: str, top_k: int) -> AsyncIterator[Any]:  # type: ignore[override]  # one after the other
        self.asked.append((query, top_k))
        for document in self.answer:
            yield document


SHAPES = [Asynchronous, Synchronous, OtherName, Generating]


def searcher(database: Any, *, timeout_s: float = LONG_S) -> OwnSearcher:
    return OwnSearcher(database, timeout_s=timeout_s)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("documents", [MAPPINGS, OBJECTS, tuple(MAPPINGS)])
async def test_documents_are_mappings_or_objects_with_id_and_text_or_content(
    shape: Callable[[Any], Any], documents: Any
) -> None:
    database = shape(documents)
    hits = await searcher(database).find("where?", top_k=5)
    assert database.asked == [("where?", 5)]
    assert [(hit.document_id, hit.text, hit.score) for hit in hits] == [("p", PARIS, 0.5), ("7", ROME, 0.0)]
    assert [hit.passage_key for hit in hits] == [passage_key(text).hex() for text in (PARIS, ROME)]


@pytest.mark.parametrize("shape", [Asynchronous, Synchronous])
async def test_more_than_asked_for_is_cut_and_an_endless_answer_ends(shape: Callable[[Any], Any]) -> None:
    def endless() -> Iterator[Document]:
        return (Document(f"d{number}", f"Text {number}.") for number in itertools.count())

    for answer in (endless, [Document(f"d{number}", f"Text {number}.") for number in range(9)]):
        hits = await searcher(shape(answer)).find("which?", top_k=3)
        assert [hit.document_id for hit in hits] == ["d0", "d1", "d2"]


async def test_a_document_that_comes_twice_stands_once() -> None:
    hits = await searcher(Asynchronous([MAPPINGS[0], MAPPINGS[0], Document("other", PARIS)])).find("?", top_k=5)
    assert [hit.document_id for hit in hits] == ["p"]


def raising() -> Iterable[Any]:
    raise KeyError("a secret")


def breaking() -> Iterator[Any]:
    yield MAPPINGS[0]
    raise OSError("a secret")


BAD: dict[str, tuple[Any, type[ForefillError], str]] = {
    "none": (None, InvalidInput, "returned None instead of a list of documents"),
    "a text": ("text", InvalidInput, "returned a str instead"),
    "a mapping": ({"documents": []}, InvalidInput, "returned a dict instead"),
    "a number": (3, InvalidInput, "returned a int instead"),
    "no document": ([None], InvalidInput, r"document 1 \(NoneType\) has no id"),
    "without id": ([{"text": "a"}], InvalidInput, r"document 1 \(dict\) has no id"),
    "an id of bytes": ([Document(b"a", "a")], InvalidInput, r"document 1 \(Document\) has a bytes as its id"),
    "an empty id": ([Document(" ", "a")], InvalidInput, "must be a string that is not empty"),
    "without text": ([{"id": "a"}], InvalidInput, "document 'a' has neither text nor content"),
    "bytes": ([{"id": "a", "text": b"a"}], InvalidInput, "document 'a' has bytes as its text, not str"),
    "an empty text": ([Document("a", " \n")], InvalidInput, "document 'a' has an empty text"),
    "a surrogate": ([Document("a", "\ud800")], InvalidInput, "document 'a' holds a lone surrogate"),
    "too long": ([Document("a", "x" * (MAX_DOCUMENT_BYTES + 1))], TooLarge, "document 'a' has 64,001 bytes"),
    "twice": ([Document("a", "a"), Document("a", "b")], InvalidInput, "'a' comes twice, with different texts"),
    "raising": (raising, Unavailable, r"vector_db\.search raised KeyError"),
    "breaking": (breaking, Unavailable, r"vector_db\.search raised OSError"),
}


@pytest.mark.parametrize("shape", [Asynchronous, Synchronous])
@pytest.mark.parametrize("bad", BAD)
async def test_every_other_shape_is_one_sentence(shape: Callable[[Any], Any], bad: str) -> None:
    answer, kind, sentence = BAD[bad]
    with pytest.raises(kind, match=sentence) as raised:
        await searcher(shape(answer)).find("?", top_k=5)
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


async def test_a_search_that_never_answers_is_given_up_in_time() -> None:
    stop = threading.Event()

    class Disobedient(Asynchronous):
        async def search(self, query: str, top_k: int) -> Any:  # noqa: ARG002  # never answers
            while not stop.is_set():
                try:
                    await asyncio.sleep(LONG_S)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.01)

    def silent() -> Iterator[Any]:
        stop.wait(LONG_S)
        yield from ()

    try:
        for database in (Synchronous(lambda: stop.wait(LONG_S)), Asynchronous(silent), Disobedient([])):
            began = time.monotonic()
            with pytest.raises(Unavailable, match=r"did not answer within 0\.05 s"):
                await searcher(database, timeout_s=0.05).find("?", top_k=5)
            assert time.monotonic() - began < LONG_S / 3
    finally:
        stop.set()


async def test_searches_that_never_return_do_not_take_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_search, "MAX_THREADS", 2)
    stop = threading.Event()
    hung = searcher(Synchronous(lambda: stop.wait(LONG_S)), timeout_s=0.05)
    try:
        for sentence in ("did not answer", "did not answer", "2 earlier calls"):
            with pytest.raises(Unavailable, match=sentence):
                await hung.find("?", top_k=5)
    finally:
        stop.set()


@pytest.mark.parametrize(
    ("database", "sentence"),
    [
        (object(), r"vector_db \(object\) is no AsyncQdrantClient and has no method search"),
        (
            type("Other", (), {"search": lambda _self: []})(),
            r"search of Other cannot be called as search\(query, top_k\)",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_at_once(database: Any, sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        searcher(database)
