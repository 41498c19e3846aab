"""Passages as the product cuts them, and the tokenizers that others would use on them."""

import gzip
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Protocol, TypeVar

import tiktoken

from benchmarks.corpus import Document
from pipeline.documents.passages import Passage
from pipeline.documents.splitting import Splitter
from pipeline.token_cache import Entry, PassageEntry
from pipeline.tokenizers import encode_passage, load_spec
from pipeline.tokenizers.vocabulary import load_ranks, vocabulary_definition

T = TypeVar("T")

ENCODING = "o200k_base"
SPEC = "o200k_base/plain"
"""Spec that everything is filled and looked up under: the default."""


class FastTokenizer(Protocol):
    """What is used of gigatoken."""

    def encode(self, text: str, /) -> Sequence[int]:
        """Return the ids of a text."""


@dataclass(frozen=True, slots=True)
class CutText:
    """Passages of several documents."""

    passages: tuple[Passage, ...]

    @property
    def texts(self) -> list[str]:
        """Their texts in order."""
        return [passage.text for passage in self.passages]

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all of them."""
        return sum(len(passage.text.encode()) for passage in self.passages)


def cut(documents: Iterable[Document], *, limit: int | None = None) -> CutText:
    """Return the passages of documents, each text once, at most `limit`."""
    return CutText(tuple(_distinct(documents, limit)))


def load_tiktoken() -> tiktoken.Encoding:
    """Return the reference encoding as any user of tiktoken has it, without the network."""
    definition = vocabulary_definition(ENCODING)
    return tiktoken.Encoding(
        ENCODING,
        pat_str=definition.pattern,
        mergeable_ranks=load_ranks(definition),
        special_tokens=dict(definition.special_tokens),
    )


def load_gigatoken() -> FastTokenizer | None:
    """Return the fast tokenizer over the same vocabulary, None where it is not installed."""
    try:
        library = import_module("gigatoken")
    except ModuleNotFoundError:
        return None
    definition = vocabulary_definition(ENCODING)
    with tempfile.TemporaryDirectory(prefix="forefill-bench-") as folder:
        ranks = Path(folder, "ranks.tiktoken")
        packed = resources.files(definition.package).joinpath(definition.resource).read_bytes()
        ranks.write_bytes(gzip.decompress(packed))
        # With special tokens it would recognize them in text.
        loaded: FastTokenizer = library.Tokenizer.from_tiktoken(ranks, pretokenizer="o200k", special_tokens={})
    return loaded


def entries_of(passages: Iterable[Passage]) -> list[PassageEntry]:
    """Return the entries that workers would write for these passages under `SPEC`."""
    spec = load_spec(SPEC)
    encoded = ((passage.key, encode_passage(spec, passage.text)) for passage in passages)
    return [(key, Entry(ids=piece.ids, right_safe=piece.right_safe)) for key, piece in encoded]


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield items in batches."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _distinct(documents: Iterable[Document], limit: int | None) -> Iterator[Passage]:
    splitter = Splitter()
    seen: set[bytes] = set()
    for document in documents:
        for passage in splitter.split(document.text):
            if limit is not None and len(seen) >= limit:
                return
            if passage.key not in seen:
                seen.add(passage.key)
                yield passage
