"""What was accepted and what is known to be served, and whether an answer agrees with it.

One writer owns a document, so its next generation is known before it is sent, but for one thing: a verification that
finds its points damaged publishes the same text again as a new generation. So a generation that is newer than the head
may be the head's text once more or the change under way; one that was accepted is exactly one text.

A passage may be of any generation that was sent and that is no older than what was known to be served when its query
began: what a query finds while a change is being published may be the old text or the new one, never one from before.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.documents.splitting import Splitter
from tests.unit.tokenizers.reference import official

ENCODING = "o200k_base"
_PREFIX = "Answer the question using the documents below.\n\n"
_SPLITTER = Splitter()
_REMEMBERED = 12


@dataclass(slots=True)
class _Document:
    """One document as its writer knows it."""

    head: int = 0
    """Generation accepted last."""
    text: str | None = None
    """Text of the head; None: deleted, or never written."""
    passages: dict[int, list[list[str]]] = field(default_factory=dict)
    """What each generation's passages may be; one list once it is known. A deleted one has none."""
    under_way: list[str] | None = None
    """Passages of the change that was sent and not accepted yet."""
    least: int = 0
    """The oldest generation that a query which begins now may find."""
    history: list[str] = field(default_factory=list)
    """What happened to it last, for whoever reads a complaint."""

    def possible(self, generation: int) -> list[list[str]]:
        """Return what a generation's passages may be."""
        if generation <= self.head:
            return self.passages.get(generation, [])
        sent = [] if self.under_way is None else [self.under_way]
        return [*self.passages.get(self.head, []), *sent]

    def note(self, event: str) -> None:
        """Add to the history."""
        self.history.append(f"{time.strftime('%H:%M:%S')} {event}")
        del self.history[:-_REMEMBERED]


@dataclass(slots=True)
class Truth:
    """All documents; safe to use from several threads."""

    wrong: list[str] = field(default_factory=list)
    """Ids or texts that are not what they must be."""
    stale: list[str] = field(default_factory=list)
    """Passages older than what was known to be served."""
    checked_passages: int = 0
    checked_answers: int = 0
    accepted: int = 0
    """Changes that were answered with 202."""
    _documents: dict[str, _Document] = field(default_factory=dict)
    _deletions: dict[str, dict[str, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def propose(self, name: str, text: str | None) -> int:
        """Note that a change is about to be sent; return its generation. None deletes."""
        with self._lock:
            document = self._documents.setdefault(name, _Document())
            generation = document.head + 1
            passages = [] if text is None else [passage.text for passage in _SPLITTER.split(text)]
            document.under_way = passages
            document.note(f"{'deletion' if text is None else 'text'} {generation} is sent")
            return generation

    def accept(self, name: str, text: str | None, *, generation: int) -> None:
        """Note that a change was accepted, as the generation that the answer named."""
        with self._lock:
            document = self._documents[name]
            document.note(f"{generation} is accepted")
            if generation <= document.head:
                said = f"{name}: a change of generation {document.head} was accepted as {generation}"
                self.wrong.append(f"{said}; {', '.join(document.history)}")
            before, sent = document.passages.get(document.head, []), document.under_way or []
            for between in range(document.head + 1, generation):
                document.passages[between] = before
            # That of a deletion is not told: the text before it may have been published again as this one.
            document.passages[generation] = [*before, sent] if text is None else [sent]
            document.head, document.text, document.under_way = generation, text, None
            self.accepted += 1

    def serve(self, name: str, generation: int) -> None:
        """Note that a generation is served: a query which begins from now on finds nothing older.

        A served deletion leaves nothing to be found.
        """
        with self._lock:
            document = self._documents[name]
            is_deletion = generation == document.head and document.text is None
            if generation + is_deletion > document.least:
                document.least = generation + is_deletion
                document.note(f"{generation} is served")

    def begin_deletion(self, run_id: str, deleted: Mapping[str, int]) -> None:
        """Note the run that deletes documents as these generations."""
        with self._lock:
            self._deletions[run_id] = dict(deleted)

    def end_deletion(self, run_id: str) -> None:
        """Forget a run that has ended."""
        with self._lock:
            del self._deletions[run_id]

    def deletions(self) -> dict[str, dict[str, int]]:
        """Return what runs delete, as generations by name."""
        with self._lock:
            return dict(self._deletions)

    def head(self, name: str) -> tuple[int, str | None]:
        """Return generation and text of a document's head; (0, None) for one never accepted."""
        with self._lock:
            document = self._documents.get(name, _Document())
            return document.head, document.text

    def living(self) -> dict[str, tuple[int, str]]:
        """Return generation and text of all documents that must be there."""
        with self._lock:
            return {
                name: (document.head, document.text)
                for name, document in self._documents.items()
                if document.text is not None
            }

    def least(self) -> dict[str, int]:
        """Return the oldest generations that a query which begins now may find."""
        with self._lock:
            return {name: document.least for name, document in self._documents.items()}

    def texts(self) -> list[str]:
        """Return every passage that was ever sent."""
        with self._lock:
            return [
                text
                for document in self._documents.values()
                for possible in document.passages.values()
                for texts in possible
                for text in texts
            ]

    def judge(self, answer: Mapping[str, Any], *, least: Mapping[str, int]) -> None:
        """Check an answer of `/v1/retrieve` with `include_text`: its ids, its texts, and their age.

        Args:
            answer: What came.
            least: What `least()` said before the question was asked.
        """
        passages, ids, text = answer["passages"], answer["token_ids"], answer["prompt_text"]
        with self._lock:
            found = [self._find(passage, least) for passage in passages]
            self.checked_answers += 1
            self.checked_passages += len(passages)
            if not passages:
                if ids and ids != encode(text):
                    self.wrong.append(f"no passages, but {len(ids)} ids of another text")
                return
            if all(found) and not _is_made_of(text, found):
                self.wrong.append(f"the text is not that of its passages: {_places(passages)}")
        if ids != encode(text):
            self.wrong.append(f"the ids are not those of the text: {_places(passages)}")

    def _find(self, passage: Mapping[str, Any], least: Mapping[str, int]) -> list[str]:
        """Return what the passage's text may be; nothing, and a complaint, if there is no such passage."""
        name, generation, ordinal = passage["document_id"], passage["generation"], passage["ordinal"]
        document = self._documents.get(name)
        if generation < least.get(name, 0) and document is not None:
            said = f"{name} in generation {generation}, when {least[name]} was the oldest to be found"
            self.stale.append(f"{said}; {', '.join(document.history)}")
        possible = document.possible(generation) if document is not None else []
        found = [texts[ordinal] for texts in possible if ordinal < len(texts)]
        if not found:
            history = ", ".join(document.history) if document is not None else "nobody sent it"
            self.wrong.append(f"{name} in generation {generation} has no passage {ordinal}; {history}")
        return found


def encode(text: str) -> list[int]:
    """Return the reference ids of a text: tiktoken itself, on the whole of it."""
    return official(ENCODING).encode_ordinary(text)


def prompt(passages: Sequence[str]) -> str:
    """Return the context that these passages make in the frame `plain`, written out by hand."""
    return _PREFIX + "".join(f"Document {number}\n{text}\n\n" for number, text in enumerate(passages, start=1))


def _is_made_of(text: str, found: Sequence[Sequence[str]]) -> bool:
    """Whether a context is made of one of the possible texts of each passage, in this order."""
    if not text.startswith(_PREFIX):
        return False
    rest = text.removeprefix(_PREFIX)
    for number, possible in enumerate(found, start=1):
        parts = (f"Document {number}\n{one}\n\n" for one in possible)
        part = next((part for part in parts if rest.startswith(part)), None)
        if part is None:
            return False
        rest = rest.removeprefix(part)
    return not rest


def _places(passages: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(
        f"{each['document_id']}@{each['generation']}#{each['ordinal']} {each['source']}" for each in passages
    )
