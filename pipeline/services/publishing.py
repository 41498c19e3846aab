"""Publishing documents by the six fenced steps: the heart of the write path.

    prepare   split, tokenize, embed what is new                                  nothing is written
    1 intend  SQL: the points about to be written, only if the head is still mine
    2 fill    Redis: entries for every spec that is filled
    3 place   Qdrant: unchanged points move on, new ones are stored               only over older generations
    4 retire  Qdrant: tombstones over points that only older generations have     only over older generations
    5 settle  SQL: served generation, manifest, ledger, items, job                only if head and fence are still mine

A holder may die, be paused or be overtaken between any two of them. `steps` yields after each, so that a test can stop
there (`tests/unit/services/test_fence_model.py` runs every interleaving).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import orjson

from pipeline.documents.manifest import PassageSpan
from pipeline.documents.passages import Passage
from pipeline.documents.publication import DocumentFailure, DocumentWork, LedgerEntry, PublishedDocument
from pipeline.documents.splitting import Splitter
from pipeline.errors import ForefillError, InvalidInput, error_sentence, is_panic
from pipeline.retrieval.embedding import Embedding, PassageEmbedder
from pipeline.retrieval.points import point_ids
from pipeline.retrieval.vector_index import Point, PointMove, PointState, Tombstone, VectorIndexWriter
from pipeline.token_cache.codec import Entry
from pipeline.tokenizers import EncodedPassages, TokenSpec, encode_passages


class EntryWriter(Protocol):
    """Where entries go."""

    def write(self, fingerprint: str, pairs: Iterable[tuple[bytes, Entry]], /) -> int:
        """Store entries by passage key and return how many; written ones may be written again."""


class PublicationLedger(Protocol):
    """The two SQL steps, fenced by the job."""

    def record_intents(self, points: Mapping[DocumentWork, Sequence[str]]) -> set[int]:
        """Step 1; return the documents whose head has not moved."""

    def settle(self, published: Sequence[PublishedDocument]) -> None:
        """Step 5.

        Raises:
            SpecSetChangedError: Specs were added meanwhile; fill them and settle again.
        """


class SpecSetChangedError(ForefillError):
    """The corpus is filled for other specs than when the job began."""

    def __init__(self, specs: Sequence[TokenSpec]) -> None:
        super().__init__("the corpus' specs changed")
        self.specs = tuple(specs)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One document, split, tokenized and embedded."""

    work: DocumentWork
    passages: tuple[Passage, ...]
    point_ids: tuple[str, ...]
    encoded: dict[str, EncodedPassages]
    """Spec id to one encoded passage each."""
    embeddings: dict[str, Embedding] = field(default_factory=dict)
    """Point id to its vectors, for points that are not served yet."""

    def published(self, specs: Sequence[TokenSpec]) -> PublishedDocument:
        """Return what SQL is to know of it."""
        ledger = tuple(
            LedgerEntry(spec.spec_id, tuple(len(passage.ids) for passage in self.encoded[spec.spec_id]))
            for spec in specs
            if self.work.text is not None
        )
        spans = tuple(PassageSpan(passage.key, passage.start, passage.end) for passage in self.passages)
        return PublishedDocument(self.work, spans, ledger)


class Publisher:
    """Publishes slices of one corpus. Lives as long as one job."""

    def __init__(
        self,
        *,
        collection: str,
        specs: Sequence[TokenSpec],
        splitter: Splitter,
        embedder: PassageEmbedder,
        cache: EntryWriter,
        index: VectorIndexWriter,
        ledger: PublicationLedger,
    ) -> None:
        self._collection = collection
        self._specs = tuple(specs)
        self._splitter = splitter
        self._embedder = embedder
        self._cache = cache
        self._index = index
        self._ledger = ledger

    def prepare(self, works: Sequence[DocumentWork]) -> tuple[list[Prepared], list[DocumentFailure]]:
        """Split, tokenize and embed; a document that cannot be is a failure and holds nobody up.

        Raises:
            Unavailable: The embedder did not answer, or refused us; nothing was written.
        """
        prepared: list[Prepared] = []
        failures: list[DocumentFailure] = []
        for work in works:
            stage = "split"
            try:
                passages = tuple(self._splitter.split(work.text or ""))
                stage = "tokenize"
                encoded = {spec.spec_id: _encode(spec, passages) for spec in self._specs}
            except BaseException as error:
                if not isinstance(error, ForefillError) and not is_panic(error):
                    raise
                may_pass = isinstance(error, ForefillError) and error.retryable
                failures.append(DocumentFailure(work, stage, error_sentence(error), final=not may_pass))
                continue
            prepared.append(Prepared(work, passages, self._point_ids(work, passages), encoded))
        return self._embed_all(prepared, failures), failures

    def publish(self, prepared: Sequence[Prepared]) -> None:
        """Take all six steps.

        Raises:
            StaleFence: Somebody else owns the job; what was written so far loses against newer generations.
            Unavailable: A service did not answer; repeating everything is safe.
        """
        for _step in self.steps(prepared):
            pass

    def steps(self, prepared: Sequence[Prepared]) -> Iterator[str]:
        """Take the six steps, yielding the name of each after it was taken."""
        unmoved = self._ledger.record_intents({document.work: document.point_ids for document in prepared})
        mine = [document for document in prepared if document.work.pk in unmoved]
        yield "intend"
        self._fill(mine, self._specs)
        yield "fill"
        moves = [move for document in mine for move in _moves(document)]
        self._index.advance(self._collection, moves)
        yield "advance"
        self._index.upsert(self._collection, self._points_to_store(mine, moves))
        yield "place"
        self._index.bury(self._collection, [stone for document in mine for stone in self._tombstones(document)])
        yield "retire"
        self._settle(mine)
        yield "settle"

    def _settle(self, mine: Sequence[Prepared]) -> None:
        while True:
            try:
                self._ledger.settle([document.published(self._specs) for document in mine])
            except SpecSetChangedError as change:
                self._specs = change.specs  # for the slices that follow, too
                self._fill(mine, self._specs)
            else:
                return

    def _fill(self, documents: Sequence[Prepared], specs: Sequence[TokenSpec]) -> None:
        for spec in specs:
            entries: list[tuple[bytes, Entry]] = []
            for document in documents:
                if spec.spec_id not in document.encoded:
                    document.encoded[spec.spec_id] = _encode(spec, document.passages)
                encoded = document.encoded[spec.spec_id]
                entries.extend(
                    (passage.key, Entry(ids=piece.ids, right_safe=piece.right_safe))
                    for passage, piece in zip(document.passages, encoded, strict=True)
                )
            self._cache.write(spec.fingerprint, entries)

    def _points_to_store(self, documents: Sequence[Prepared], moves: Sequence[PointMove]) -> list[Point]:
        """Return new points, and those that SQL calls served but the index has lost or buried."""
        alive = self._index.states(self._collection, [move.point_id for move in moves]) if moves else {}
        points: list[Point] = []
        for document in documents:
            lost = [
                (ordinal, identity)
                for ordinal, identity in enumerate(document.point_ids)
                if identity not in document.embeddings and _is_lost(alive, identity, document.work.generation)
            ]
            vectors = self._embedder.embed_passages([document.passages[ordinal].text for ordinal, _ in lost])
            embeddings = document.embeddings | {
                identity: vector for (_, identity), vector in zip(lost, vectors, strict=True)
            }
            points.extend(self._points(document, embeddings))
        return points

    def _points(self, document: Prepared, embeddings: Mapping[str, Embedding]) -> Iterator[Point]:
        metadata = orjson.loads(document.work.attributes)
        for ordinal, (identity, passage) in enumerate(zip(document.point_ids, document.passages, strict=True)):
            if identity in embeddings:
                yield Point(
                    point_id=identity,
                    document_id=document.work.id,
                    ordinal=ordinal,
                    generation=document.work.generation,
                    passage_key=passage.key.hex(),
                    text=passage.text,
                    metadata=metadata,
                    token_counts={
                        spec.fingerprint: len(document.encoded[spec.spec_id][ordinal].ids) for spec in self._specs
                    },
                    embedding=embeddings[identity],
                )

    def _tombstones(self, document: Prepared) -> list[Tombstone]:
        work = document.work
        older = (work.older_points | set(self._served_points(work))) - set(document.point_ids)
        return [Tombstone(identity, work.id, work.generation) for identity in sorted(older)]

    def _embed_all(self, prepared: Sequence[Prepared], failures: list[DocumentFailure]) -> list[Prepared]:
        """Embed what is not served yet; where the batch is refused, find the document that is to blame."""
        new = [(document, self._new_passages(document)) for document in prepared]
        texts = [text for _, passages in new for _, text in passages]
        try:
            vectors = iter(self._embedder.embed_passages(texts))
        except InvalidInput:
            return self._embed_singly(new, failures)
        for document, passages in new:
            document.embeddings.update((identity, next(vectors)) for identity, _ in passages)
        return list(prepared)

    def _embed_singly(
        self, new: Sequence[tuple[Prepared, list[tuple[str, str]]]], failures: list[DocumentFailure]
    ) -> list[Prepared]:
        embedded: list[Prepared] = []
        for document, passages in new:
            try:
                vectors = self._embedder.embed_passages([text for _, text in passages])
            except InvalidInput as error:
                failures.append(DocumentFailure(document.work, "embed", str(error), final=True))
                continue
            document.embeddings.update(zip((identity for identity, _ in passages), vectors, strict=True))
            embedded.append(document)
        return embedded

    def _new_passages(self, document: Prepared) -> list[tuple[str, str]]:
        served = set(self._served_points(document.work))
        pairs = zip(document.point_ids, document.passages, strict=True)
        return [(identity, passage.text) for identity, passage in pairs if identity not in served]

    def _point_ids(self, work: DocumentWork, passages: Sequence[Passage]) -> tuple[str, ...]:
        return self._identify(work, [passage.key for passage in passages])

    def _served_points(self, work: DocumentWork) -> tuple[str, ...]:
        return self._identify(work, [span.key for span in work.served])

    def _identify(self, work: DocumentWork, keys: Sequence[bytes]) -> tuple[str, ...]:
        return point_ids(self._collection, document_id=work.id, passage_keys=keys)


def _encode(spec: TokenSpec, passages: Sequence[Passage]) -> EncodedPassages:
    return encode_passages(spec, [passage.text for passage in passages])


def _moves(document: Prepared) -> Iterator[PointMove]:
    metadata = orjson.loads(document.work.attributes)
    for ordinal, identity in enumerate(document.point_ids):
        if identity not in document.embeddings:
            yield PointMove(identity, ordinal, document.work.generation, metadata)


def _is_lost(alive: Mapping[str, PointState], identity: str, generation: int) -> bool:
    state = alive.get(identity)
    return state is None or state.generation < generation
