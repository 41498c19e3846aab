"""SQL's side of publishing one document, as immutable values: the rules of `pipeline.documents.publication`.

`tests/integration/test_publication.py` replays random histories on this twin and on the real statements and compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipeline.documents.manifest import PassageSpan
from pipeline.documents.publication import DocumentWork, PublishedDocument
from pipeline.errors import StaleFence

DOCUMENT_PK = 1
DOCUMENT_ID = "document"


@dataclass(frozen=True, slots=True)
class Head:
    """What a worker reads of the document first."""

    generation: int
    text: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """One queue's running job: its fence, and whether its holder is still at work as far as SQL knows."""

    fence: int = 0
    running: bool = False


@dataclass(frozen=True, slots=True)
class DocumentRows:
    """All rows of one document, and of the jobs that publish it."""

    generation: int = 0
    text: str | None = None
    queue: str = ""
    published: int = 0
    served: int = 0
    manifest: tuple[PassageSpan, ...] = ()
    intents: frozenset[tuple[int, frozenset[str]]] = frozenset()
    ledger: frozenset[str] = frozenset()
    """Ids of specs whose entries were written for the served generation."""
    spec_count: int = 1
    """How many of the corpus' specs are filled; grows, and is the version of the set at once."""
    leases: tuple[tuple[str, Lease], ...] = ()

    @property
    def is_behind(self) -> bool:
        """Whether a worker is needed."""
        return self.published < self.generation

    def lease(self, queue: str) -> Lease:
        """Return a queue's lease; none was taken yet by default."""
        return dict(self.leases).get(queue, Lease())

    def with_lease(self, queue: str, lease: Lease) -> "DocumentRows":
        """Return the rows with one queue's lease replaced."""
        return replace(
            self, leases=tuple(sorted({**dict(self.leases), queue: lease}.items(), key=lambda pair: pair[0]))
        )

    def accept(self, text: str | None, *, queue: str) -> "DocumentRows":
        """Store a new head."""
        return replace(self, generation=self.generation + 1, text=text, queue=queue)

    def head_of(self, queue: str) -> Head | None:
        """Return the head if it is behind and came by this queue."""
        return Head(self.generation, self.text) if self.is_behind and self.queue == queue else None

    def older_points(self, generation: int) -> frozenset[str]:
        """Return the points that generations before this one said they would write."""
        return frozenset(point for older, points in self.intents if older < generation for point in points)


class PublicationRules:
    """The fenced writes. A model that breaks one of the rules is a subclass."""

    def record_intents(
        self, rows: DocumentRows, work: DocumentWork, points: Sequence[str], *, queue: str, fence: int
    ) -> tuple[DocumentRows, bool]:
        """Step 1: return the rows after it, and whether the head was still this work's."""
        self.check_fence(rows, queue=queue, fence=fence)
        if not self.is_unmoved(rows, work):
            return rows, False
        others = frozenset(intent for intent in rows.intents if intent[0] != work.generation)
        return replace(rows, intents=others | {(work.generation, frozenset(points))}), True

    def store_published(
        self, rows: DocumentRows, published: PublishedDocument, *, queue: str, fence: int
    ) -> DocumentRows:
        """Step 5: serve the generation if it is still the head."""
        self.check_fence(rows, queue=queue, fence=fence)
        work = published.work
        if not self.is_unmoved(rows, work):
            return rows
        return replace(
            rows,
            published=work.generation,
            served=0 if work.text is None else work.generation,
            manifest=() if work.text is None else published.spans,
            ledger=frozenset() if work.text is None else frozenset(entry.spec_id for entry in published.ledger),
            intents=frozenset(intent for intent in rows.intents if intent[0] > work.generation),
        )

    def check_fence(self, rows: DocumentRows, *, queue: str, fence: int) -> None:
        """Refuse a holder whose job was taken by another."""
        if rows.lease(queue) != Lease(fence, running=True):
            raise StaleFence(f"{queue} #{fence} has a newer owner")

    def is_unmoved(self, rows: DocumentRows, work: DocumentWork) -> bool:
        """Tell whether the head is this work's and not published yet."""
        return rows.generation == work.generation and rows.published < rows.generation
