"""What a served document should have in the cache, recomputed, and how it differs from what is stored. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipeline.documents.passages import passage_key
from pipeline.documents.ranges import ServedDocument
from pipeline.documents.splitting import Splitter
from pipeline.token_cache import Entry, Found, MissReason, PassageEntry
from pipeline.tokenizers import EncodedPassage, TokenSpec, encode_passages


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One served document with its entries as they should be."""

    document: ServedDocument
    keys: tuple[bytes, ...]
    """Of the passages that are served, in order."""
    entries: dict[str, tuple[Entry, ...]]
    """By spec id, one for each key."""
    cuts_moved: bool
    """Whether its text would be cut into other passages today: only publishing it anew can mend that."""

    def pairs(self, spec_id: str) -> Iterator[PassageEntry]:
        """Yield passage keys with entries of one spec."""
        return zip(self.keys, self.entries[spec_id], strict=True)

    def token_counts(self, spec_id: str) -> tuple[int, ...]:
        """Return the tokens of each passage with its separator."""
        return tuple(entry.token_count for entry in self.entries[spec_id])

    def token_count(self, spec_id: str) -> int:
        """Return the tokens of the document."""
        return sum(self.token_counts(spec_id))


def recompute(
    documents: Sequence[ServedDocument], *, specs: Sequence[TokenSpec], splitter: Splitter | None
) -> list[Recomputed]:
    """Compute the entries of documents whose heads are served, all passages of a spec in one go.

    Args:
        documents: With their texts.
        specs: For which entries are made.
        splitter: Of their corpus; None not to look whether it would cut otherwise today.

    Raises:
        InvalidInput: A tokenizer gives up on a passage; which document's is found by trying each alone.
    """
    texts = [_served_texts(document) for document in documents]
    passages = [passage for each in texts if each is not None for passage in each]
    encoded = {spec.spec_id: iter(encode_passages(spec, passages)) for spec in specs}
    return [_recomputed(document, each, encoded, splitter) for document, each in zip(documents, texts, strict=True)]


def _served_texts(document: ServedDocument) -> list[str] | None:
    """Return the texts of the passages that are served, None if the document's text is another one."""
    text = document.text or ""
    texts = [text[span.start : span.end] for span in document.spans]
    if any(passage_key(passage) != span.key for passage, span in zip(texts, document.spans, strict=True)):
        return None
    return texts


def _recomputed(
    document: ServedDocument,
    texts: Sequence[str] | None,
    encoded: Mapping[str, Iterator[EncodedPassage]],
    splitter: Splitter | None,
) -> Recomputed:
    if texts is None:  # its entries cannot be computed from what is there: it must be published anew
        return Recomputed(document, (), dict.fromkeys(encoded, ()), cuts_moved=True)
    keys = tuple(span.key for span in document.spans)
    entries = {
        spec_id: tuple(Entry(ids=piece.ids, right_safe=piece.right_safe) for piece in islice(pieces, len(keys)))
        for spec_id, pieces in encoded.items()
    }
    moved = splitter is not None and tuple(passage.key for passage in splitter.split(document.text or "")) != keys
    return Recomputed(document, keys, entries, cuts_moved=moved)


def compare(recomputed: Recomputed, spec_id: str, stored: Sequence[Found], *, epoch_at: int) -> list[str]:
    """Return in sentences how cache and ledger differ from what they should hold of one document.

    Args:
        recomputed: What it should be.
        spec_id: One of its specs.
        stored: What the cache holds under its keys.
        epoch_at: Ledger rows written before this time are not believed.
    """
    pairs = list(zip(recomputed.entries[spec_id], stored, strict=True))
    counted = {
        "are missing": sum(found is MissReason.ABSENT for _, found in pairs),
        "cannot be read": sum(found is MissReason.CORRUPT for _, found in pairs),
        "hold other ids": sum(isinstance(found, Entry) and found != entry for entry, found in pairs),
    }
    of = f"of {len(pairs)} entries"
    sentences = [f"{spec_id}: {count} {of} {what}" for what, count in counted.items() if count]
    ledger = recomputed.document.ledger.get(spec_id)
    if ledger is None or ledger.generation != recomputed.document.served_generation:
        sentences.append(f"{spec_id}: the ledger does not know it")
    elif ledger.written_at < epoch_at:
        sentences.append(f"{spec_id}: the cache was lost since it was filled")
    elif not np.array_equal(ledger.token_counts, recomputed.token_counts(spec_id)):
        sentences.append(f"{spec_id}: the ledger counts {int(ledger.token_counts.sum())} tokens, "
                         f"not {recomputed.token_count(spec_id)}")  # fmt: skip
    return sentences
