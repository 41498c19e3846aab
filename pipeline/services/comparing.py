"""What a served document should have in the cache, recomputed, and how it differs from what is stored. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.documents.passages import passage_key
from pipeline.documents.ranges import LedgerRecord, ServedDocument
from pipeline.documents.splitting import Splitter
from pipeline.token_cache import Entries, Entry, Found, MissReason
from pipeline.tokenizers import EncodedPassages, TokenSpec, encode_passages


@dataclass(frozen=True, slots=True, eq=False)
class RecomputedTogether:
    """The passages of several served documents, one after the other, with their entries as they should be."""

    keys: list[bytes]
    """Of the passages that are served, in order."""
    encoded: Mapping[str, EncodedPassages]
    """By spec id, one for each key."""
    token_counts: Mapping[str, list[int]]
    """By spec id, of each passage with its separator."""

    def entries(self, spec_id: str) -> Entries:
        """Return the entries of all passages under one spec."""
        encoded = self.encoded[spec_id]
        return Entries(self.keys, encoded.ids, encoded.right_safe)


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One served document with its entries as they should be: those from one position to before another."""

    document: ServedDocument
    together: RecomputedTogether
    start: int
    stop: int
    cuts_moved: bool
    """Whether its text would be cut into other passages today: only publishing it anew can mend that."""

    @property
    def keys(self) -> list[bytes]:
        """Return the keys of its passages, none if its entries cannot be computed from what is there."""
        return self.together.keys[self.start : self.stop]

    def entries(self, spec_id: str) -> list[Entry]:
        """Return the entries under one spec, one for each key."""
        encoded = self.together.encoded[spec_id][self.start : self.stop]
        return [Entry(ids=passage.ids, right_safe=passage.right_safe) for passage in encoded]

    def token_counts(self, spec_id: str) -> tuple[int, ...]:
        """Return the tokens of each passage with its separator."""
        return tuple(self.together.token_counts[spec_id][self.start : self.stop])

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
    keys = [
        span.key
        for document, each in zip(documents, texts, strict=True)
        if each is not None
        for span in document.spans
    ]  # fmt: skip
    encoded = {spec.spec_id: encode_passages(spec, passages) for spec in specs}
    counts = {spec_id: each.ids.sizes.tolist() for spec_id, each in encoded.items()}
    together = RecomputedTogether(keys, encoded, counts)
    found, start = [], 0
    for document, each in zip(documents, texts, strict=True):
        stop = start + len(each or ())
        moved = each is None or (splitter is not None and _cuts_move(document, splitter))
        found.append(Recomputed(document, together, start, stop, moved))
        start = stop
    return found


def _served_texts(document: ServedDocument) -> list[str] | None:
    """Return the texts of the passages that are served, None if the document's text is another one."""
    text = document.text or ""
    texts = [text[span.start : span.end] for span in document.spans]
    if any(passage_key(passage) != span.key for passage, span in zip(texts, document.spans, strict=True)):
        return None  # its entries cannot be computed from what is there: it must be published anew
    return texts


def _cuts_move(document: ServedDocument, splitter: Splitter) -> bool:
    cut = [passage.key for passage in splitter.split(document.text or "")]
    return cut != [span.key for span in document.spans]


def compare(
    recomputed: Recomputed, spec_id: str, stored: Sequence[Found], *, ledger: LedgerRecord | None, epoch_at: int
) -> list[str]:
    """Return in sentences how cache and ledger differ from what they should hold of one document.

    Args:
        recomputed: What it should be.
        spec_id: One of its specs.
        stored: What the cache holds under its keys.
        ledger: What SQL believes of it.
        epoch_at: Ledger rows written before this time are not believed.
    """
    pairs = list(zip(recomputed.entries(spec_id), stored, strict=True))
    counted = {
        "are missing": sum(found is MissReason.ABSENT for _, found in pairs),
        "cannot be read": sum(found is MissReason.CORRUPT for _, found in pairs),
        "hold other ids": sum(isinstance(found, Entry) and found != entry for entry, found in pairs),
    }
    of = f"of {len(pairs)} entries"
    sentences = [f"{spec_id}: {count} {of} {what}" for what, count in counted.items() if count]
    if ledger is None or ledger.generation != recomputed.document.served_generation:
        sentences.append(f"{spec_id}: the ledger does not know it")
    elif ledger.written_at < epoch_at:
        sentences.append(f"{spec_id}: the cache was lost since it was filled")
    elif not np.array_equal(ledger.token_counts, recomputed.token_counts(spec_id)):
        sentences.append(f"{spec_id}: the ledger counts {int(ledger.token_counts.sum())} tokens, "
                         f"not {recomputed.token_count(spec_id)}")  # fmt: skip
    return sentences
