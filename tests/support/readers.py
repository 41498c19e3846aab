"""Readers that query all the time and notice misses and stale passages."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import httpx


@dataclass(slots=True)
class Seen:
    """What all readers saw."""

    queries: int = 0
    misses: int = 0
    stale: list[str] = field(default_factory=list)
    """Sentences about passages that should not have been there any more."""


class AskingThreads:
    """Threads that go through questions in a loop until they are ended; `ask` is a subclass' own."""

    def __init__(self, api_url: str, questions: Sequence[str], *, count: int) -> None:
        """Start asking; whatever `ask` needs must be there already."""
        self._url = api_url
        self._questions = questions
        self._errors: list[BaseException] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._read, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def ask(self, api: httpx.Client, query: str) -> None:
        """Ask one question; called by all threads."""
        raise AssertionError(f"{type(self).__name__} does not say what to do with {query!r} at {api.base_url}")

    def end(self) -> None:
        """Stop all threads.

        Raises:
            BaseException: What went wrong in one of them.
        """
        self._over.set()
        for thread in self._threads:
            thread.join(timeout=30)
        if self._errors:
            raise self._errors[0]

    def _read(self, number: int) -> None:
        try:
            with httpx.Client(base_url=self._url, timeout=30) as api:
                turn = number
                while not self._over.is_set():
                    self.ask(api, self._questions[turn % len(self._questions)])
                    turn += 1
        except BaseException as error:  # noqa: BLE001  # handed to the test's thread by `end`
            self._errors.append(error)


class Readers(AskingThreads):
    """Threads that notice misses and stale passages.

    A passage is stale if its document had been published in a newer generation, or deleted, before the query began.
    """

    def __init__(self, api_url: str, corpus: str, questions: Sequence[str], *, count: int) -> None:
        self._corpus = corpus
        self._lock = threading.Lock()
        self._least: dict[str, int] = {}
        self._gone: set[str] = set()
        self._seen = Seen()
        super().__init__(api_url, questions, count=count)

    def expect(self, documents: Mapping[str, str]) -> None:
        """From now on these documents' passages must be one generation newer."""
        with self._lock:
            for name in documents:
                self._least[name] = self._least.get(name, 1) + 1

    def expect_gone(self, names: Iterable[str]) -> None:
        """From now on these documents must never be found."""
        with self._lock:
            self._gone.update(names)

    def stop(self) -> Seen:
        """Stop all readers and return what they saw.

        Raises:
            BaseException: What went wrong in a reader.
        """
        self.end()
        return self._seen

    def ask(self, api: httpx.Client, query: str) -> None:
        """Ask, and look at what came back."""
        with self._lock:
            least, gone = dict(self._least), set(self._gone)
        answer = api.post("/v1/retrieve", json={"corpus": self._corpus, "query": query, "top_k": 10})
        assert answer.status_code == 200, answer.text
        passages = answer.json()["passages"]
        stale = [
            f"{p['document_id']} in generation {p['generation']}"
            for p in passages
            if p["document_id"] in gone or p["generation"] < least.get(p["document_id"], 0)
        ]
        with self._lock:
            self._seen.queries += 1
            self._seen.misses += sum(p["source"] == "miss" for p in passages)
            self._seen.stale += stale
