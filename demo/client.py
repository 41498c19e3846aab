"""The HTTP API as the demo asks it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from demo.checks import CannotGoOn

_TIMEOUT_S = 30.0
_RUN_S = 120.0
_GENERATE_S = 120.0
_LOOK_S = 0.01
_ENDED = {"succeeded", "partial", "failed", "cancelled"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What `/v1/retrieve` answered."""

    token_ids: list[int]
    prompt_text: str
    generations: dict[str, set[int]]
    """Which generations of which documents its passages are of."""
    sources: list[str]
    """Where each passage's ids came from: `l1`, `l2`, `miss` or `off`."""
    latency_ms: float
    timings_ms: dict[str, float]

    @property
    def all_hit(self) -> bool:
        """Whether there are passages, and the ids of every one came from the cache."""
        return bool(self.sources) and set(self.sources) <= {"l1", "l2"}


class Client:
    """One connection to the API."""

    def __init__(self, url: str, *, corpus: str) -> None:
        self._corpus = corpus
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def retrieve(self, query: str, *, top_k: int = 5) -> Answer:
        """Ask one question."""
        body = {"corpus": self._corpus, "query": query, "top_k": top_k, "include_text": True}
        answer = self._object("POST", "/v1/retrieve", json=body)
        generations: dict[str, set[int]] = {}
        for passage in answer["passages"]:
            generations.setdefault(passage["document_id"], set()).add(passage["generation"])
        return Answer(
            token_ids=answer["token_ids"],
            prompt_text=answer["prompt_text"],
            generations=generations,
            sources=[passage["source"] for passage in answer["passages"]],
            latency_ms=answer["metadata"]["latency_ms"],
            timings_ms=answer["metadata"]["timings_ms"],
        )

    def retrieve_ids(self, query: str, *, max_context_tokens: int) -> list[int]:
        """Return the ids of a question's context."""
        body = {"corpus": self._corpus, "query": query, "max_context_tokens": max_context_tokens}
        ids: list[int] = self._object("POST", "/v1/retrieve", json=body)["token_ids"]
        return ids

    def generate(self, query: str, *, max_context_tokens: int, max_tokens: int) -> dict[str, Any]:
        """Return the engine's likeliest answer, with all ids and the prompt's text."""
        body = {
            "corpus": self._corpus,
            "query": query,
            "max_context_tokens": max_context_tokens,
            "max_tokens": max_tokens,
            "temperature": 0,
            "return_token_ids": True,
            "include_text": True,
        }
        return self._object("POST", "/v1/generate", json=body, timeout=_GENERATE_S)

    def put(self, texts: dict[str, str]) -> str:
        """Set documents and return the id of the run."""
        body = {"documents": [{"id": name, "text": text} for name, text in texts.items()]}
        return str(self._object("PUT", f"/v1/corpora/{self._corpus}/documents", json=body)["run_id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """Return how a run stands."""
        return self._object("GET", f"/v1/runs/{run_id}")

    def wait_for_run(self, run_id: str, *, look: Callable[[dict[str, Any]], None] | None = None) -> dict[str, Any]:
        """Return a run when it has ended.

        Args:
            run_id: The run.
            look: Shown how the run stands, every few milliseconds.

        Raises:
            CannotGoOn: It does not end.
        """
        deadline = time.monotonic() + _RUN_S
        while True:
            run = self.run(run_id)
            if look is not None:
                look(run)
            if run["state"] in _ENDED:
                return run
            if time.monotonic() > deadline:
                raise CannotGoOn(f"run {run_id} has not ended after {_RUN_S:g} s: {run['totals']}")
            time.sleep(_LOOK_S)

    def documents(self) -> list[dict[str, Any]]:
        """Return every document of the corpus, page by page."""
        found: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self._object("GET", f"/v1/corpora/{self._corpus}/documents", params={"limit": 500, "after": after})
            found += page["documents"]
            if page["next"] is None:
                return found
            after = page["next"]

    def document_status(self, document_id: str) -> int:
        """Return the status code of asking for one document."""
        return self._http.get(f"/v1/corpora/{self._corpus}/documents/{document_id}").status_code

    def stats(self) -> dict[str, Any]:
        """Return the statistics."""
        return self._object("GET", "/v1/stats")

    def reset_stats(self) -> None:
        """Begin to count anew."""
        self._http.post("/v1/stats/reset", json={}).raise_for_status()

    def _object(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        answer = self._http.request(method, path, **arguments)
        if answer.is_error:
            raise CannotGoOn(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
        value: dict[str, Any] = answer.json()
        return value
