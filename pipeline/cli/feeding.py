"""Filling one open run from a stream of any length, in bounded memory and without losing what was accepted.

A run is opened, filled in transactions of at most 500 documents and 8 MiB of text, and sealed, whatever ended the
stream. Adding a batch twice is harmless, so a batch that may or may not have been committed is simply added again.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from tenacity import Retrying

from pipeline.cli.seen_ids import SeenIds
from pipeline.documents.readers import SourceDocument
from pipeline.errors import Conflict, Unavailable
from pipeline.jobs.runs import OPEN_RUN_S
from pipeline.jobs.store import INTERACTIVE_LIMIT
from pipeline.services.ingestion import IngestionService
from pipeline.settings import MIB
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

MAX_BATCH_DOCUMENTS = 500
"""Documents of one transaction."""
MAX_BATCH_BYTES = 8 * MIB
"""UTF-8 bytes of text in one transaction, unless one document alone has more."""
MAX_INTERACTIVE_BYTES = 32 * MIB
"""Text beyond this is bulk work however few its documents are; it bounds what is held while they are counted."""

Item = TypeVar("Item")


def choose_queue(documents: Iterable[SourceDocument]) -> tuple[str, Iterator[SourceDocument]]:
    """Read just far enough to know by which queue the work goes; return it and all the documents.

    Args:
        documents: Read once, lazily.
    """
    rest = iter(documents)
    first: list[SourceDocument] = []
    size_bytes = 0
    for document in rest:
        first.append(document)
        size_bytes += len(document.text.encode())
        if len(first) > INTERACTIVE_LIMIT or size_bytes > MAX_INTERACTIVE_BYTES:
            return "bulk", itertools.chain(first, rest)
    return "interactive", iter(first)


def in_batches(
    documents: Iterable[SourceDocument],
    *,
    max_documents: int = MAX_BATCH_DOCUMENTS,
    max_bytes: int = MAX_BATCH_BYTES,
) -> Iterator[list[SourceDocument]]:
    """Yield batches for one transaction each; a document over the limit comes alone."""
    batch: list[SourceDocument] = []
    size_bytes = 0
    for document in documents:
        document_bytes = len(document.text.encode())
        if batch and (len(batch) >= max_documents or size_bytes + document_bytes > max_bytes):
            yield batch
            batch, size_bytes = [], 0
        batch.append(document)
        size_bytes += document_bytes
    if batch:
        yield batch


def keep_last(documents: Sequence[SourceDocument]) -> list[SourceDocument]:
    """Return the documents without those that a later one of the same id replaces."""
    return list({document.id: document for document in documents}.values())


class OpenRun:
    """One run from opening to sealing, kept open while its source is slow; use it with `with`."""

    def __init__(
        self,
        service: IngestionService,
        corpus: str,
        *,
        kind: str,
        retrying: Retrying,
        keep_open_s: float = OPEN_RUN_S / 4,
    ) -> None:
        """Remember what is needed.

        Args:
            service: Accepts the documents.
            corpus: Name of their corpus.
            kind: `ingest` or `delete`.
            retrying: How long an unavailable database is waited for.
            keep_open_s: Seconds between two signs of life.
        """
        self._service = service
        self._corpus = corpus
        self._kind = kind
        self._retrying = retrying
        self._keep_open_s = keep_open_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_open, name="keep-open", daemon=True)
        self.id = ""
        """The run's id, once entered."""
        self.given = SeenIds()
        """Ids that were added."""
        self.changed = SeenIds()
        """Those of them whose document was not what it is already."""

    def __enter__(self) -> Self:
        self.id = self._retrying(self._service.open, self._corpus, kind=self._kind)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            self._retrying(self._service.seal, self.id)
            return
        try:
            self._service.seal(self.id)
        except Unavailable as unavailable:  # the dispatcher seals it; the error under way is the one to tell
            _log.warning("run.not_sealed", run_id=self.id, error=str(unavailable))

    def add(self, documents: Sequence[SourceDocument], *, queue: str) -> None:
        """Accept one batch, ids not repeated."""
        accepted = self._retrying(self._service.add, self.id, self._corpus, documents, queue=queue)
        self.given.add([document.id for document in documents])
        self.changed.add([document.id for document in accepted if document.status == "accepted"])

    def add_deletions(self, ids: Sequence[str], *, queue: str) -> None:
        """Accept one batch of deletions, ids not repeated."""
        self._retrying(self._service.add_deletions, self.id, self._corpus, ids, queue=queue)
        self.given.add(ids)

    def _keep_open(self) -> None:
        while not self._over.wait(self._keep_open_s):
            try:
                self._service.keep_open(self.id)
            except Conflict:
                return  # it was closed meanwhile: the next batch says so
            except Unavailable as error:
                _log.warning("run.not_kept_open", run_id=self.id, error=str(error))
