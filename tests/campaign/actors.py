"""Who uses the stack during the campaign: writers, readers, one watcher of what is served, one operator."""

import random
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.campaign.texts import document_text, question
from tests.campaign.traffic import Client, Traffic
from tests.campaign.truth import Truth

CORPUS = "campaign"
_DOCUMENTS = f"/v1/corpora/{CORPUS}/documents"
_BATCH = 5
_AGAIN_S = 0.5
"""Pause before the next request when one was not answered."""
_OTHERS_WORD = frozenset({404, 409})
"""What an operator may be told: the run is gone, has ended, or cannot be paused."""


@dataclass
class Actor:
    """One thread that acts until it is told to stop."""

    api_url: str
    traffic: Traffic
    truth: Truth
    over: threading.Event
    """Set when it is to end what it does and stop."""
    abandoned: threading.Event
    """Set when nobody cares any more what became of what it does."""
    seed: int
    name: str = "actor"
    pause_s: float = 0.2
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.draw = random.Random(f"{self.name}/{self.seed}")
        self.client = Client(self.api_url, self.traffic, self.name.partition("-")[0])
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended what it was doing."""
        self._thread.join(timeout=240)
        if self._thread.is_alive():
            self.errors.append(f"{self.name} did not end")

    def act(self) -> None:
        """Do one thing; called again and again."""
        raise AssertionError(f"{self.name} does not say what it does")

    def _run(self) -> None:
        try:
            while not self.over.wait(self.pause_s * self.draw.random() * 2):
                self.act()
        except BaseException as error:  # noqa: BLE001  # the campaign's verdict says it
            self.errors.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            self.client.close()


@dataclass
class Writer(Actor):
    """Creates, changes and deletes documents of its own; goes on asking until it knows what became of each."""

    documents: Sequence[str] = ()
    give_up_s: float = 300.0

    def act(self) -> None:
        """Change a few documents, or delete a few."""
        names = self.draw.sample(list(self.documents), self.draw.randint(1, _BATCH))
        living = [name for name in names if self.truth.head(name)[1] is not None]
        if living and self.draw.random() < 0.2:
            self._delete(living)
        else:
            self._put(names)

    def _put(self, names: Sequence[str]) -> None:
        texts = {name: document_text(name, self.truth.head(name)[0] + 1) for name in names}
        for name, text in texts.items():
            self.truth.propose(name, text)
        body = {"documents": [{"id": name, "text": text} for name, text in texts.items()]}
        answer = self._insist("PUT", _DOCUMENTS, json=body, headers={"Idempotency-Key": self._key()})
        for accepted in answer["documents"]:
            name = accepted["id"]
            self.truth.accept(name, texts[name], generation=accepted["generation"])

    def _delete(self, names: Sequence[str]) -> None:
        for name in names:
            self.truth.propose(name, None)
        answer = self._insist("DELETE", _DOCUMENTS, json={"ids": list(names)})
        deleted = {name: self.truth.head(name)[0] + 1 for name in names}
        for name, generation in deleted.items():  # one more, whichever attempt it was that deleted it
            self.truth.accept(name, None, generation=generation)
        if answer["accepted"] == len(names):  # this one did, so its run tells when it is served
            self.truth.begin_deletion(answer["run_id"], deleted)

    def _insist(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """Send a request until it succeeds: only then it is known what happened."""
        for _ in range(int(self.give_up_s / _AGAIN_S)):
            answer = self.client.ask(method, path, **options)
            if answer is not None:
                return answer
            if self.abandoned.wait(_AGAIN_S):
                break
        raise AssertionError(f"{method} {path} was not accepted, for at most {self.give_up_s:g} s")

    def _key(self) -> str:
        return str(uuid.UUID(int=self.draw.getrandbits(128)))


@dataclass
class Reader(Actor):
    """Asks, and has every answer judged."""

    documents: Sequence[str] = ()

    def act(self) -> None:
        """Ask one question."""
        least = self.truth.least()
        text = question(self.draw.choice(self.documents), self.draw)
        body = {"corpus": CORPUS, "query": text, "top_k": self.draw.randint(1, 8), "include_text": True}
        answer = self.client.ask("POST", "/v1/retrieve", json=body, fine=frozenset({404}))
        if answer is None:
            self.over.wait(_AGAIN_S)
        else:
            self.truth.judge(answer, least=least)


@dataclass
class Watcher(Actor):
    """Looks at what SQL says is served: from then on no query may find anything older."""

    def act(self) -> None:
        """Read the list of documents, and what became of deletions, once."""
        found = list_documents(self.client) or {}
        for document in found.values():
            self.truth.serve(document["id"], document["served_generation"])
        for run_id, deleted in self.truth.deletions().items():
            run = self.client.ask("GET", f"/v1/runs/{run_id}")
            if run is not None and run["finished_at"] is not None:
                self.truth.end_deletion(run_id)
                if run["totals"]["done"] == len(deleted):  # none was written anew before it was gone
                    for name, generation in deleted.items():
                        self.truth.serve(name, generation)


@dataclass
class Operator(Actor):
    """Does what operators do: runs of every kind, pauses, clears the cache, looks at everything."""

    say: Callable[[str], None] = print
    """Takes what it did to the cache: whoever reads the log of a loss wants to know."""

    def act(self) -> None:
        """Do one thing."""
        what = self.draw.choice(("retokenize", "retokenize", "backfill", "verify", "gc", "clear", "look", "look"))
        match what:
            case "clear":
                answer = self.client.send("DELETE", "/v1/cache", params={"corpus": CORPUS, "refill": True})
                self.say(f"operator: cleared the cache: {'no answer' if answer is None else answer.text[:200]}")
            case "look":
                for path in ("/v1/stats", "/readyz", "/v1/runs", "/metrics", "/", f"/v1/corpora/{CORPUS}"):
                    self.client.send("GET", path)
            case _:
                self._start_run(what)

    def _start_run(self, kind: str) -> None:
        options = {
            "retokenize": {"only_changed": self.draw.random() < 0.5},
            "verify": {"repair": self.draw.random() < 0.5},
        }.get(kind, {})
        run = self.client.ask("POST", "/v1/runs", json={"kind": kind, "corpus": CORPUS, "options": options})
        if run is not None and self.draw.random() < 0.3:
            self.client.ask("POST", f"/v1/runs/{run['id']}/pause", fine=_OTHERS_WORD)
            self.over.wait(self.draw.random() * 3)
            self.client.ask("POST", f"/v1/runs/{run['id']}/resume", fine=_OTHERS_WORD)


def list_documents(client: Client) -> dict[str, dict[str, Any]] | None:
    """Return all documents by id, None if a page was not answered."""
    found: dict[str, dict[str, Any]] = {}
    after = ""
    while True:
        page = client.ask("GET", _DOCUMENTS, params={"limit": 1000, "after": after}, fine=frozenset({404}))
        if page is None:
            return None
        found |= {document["id"]: document for document in page["documents"]}
        if page["next"] is None:
            return found
        after = page["next"]
