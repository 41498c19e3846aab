"""Passages as they come out of the cache, from texts."""

from collections.abc import Sequence

from pipeline.context import ContextPassage
from pipeline.tokenizers import TokenSpec, encode_passage


def found(
    spec: TokenSpec,
    text: str,
    *,
    document_id: str = "document",
    ordinal: int = 0,
    generation: int = 1,
    right_safe: bool | None = None,
) -> ContextPassage:
    """One passage; `right_safe` overrides what its encoding found."""
    piece = encode_passage(spec, text)
    return ContextPassage(
        passage_key=text.encode()[:16].ljust(16, b"\0"),
        ids=piece.ids,
        right_safe=piece.right_safe if right_safe is None else right_safe,
        document_id=document_id,
        ordinal=ordinal,
        generation=generation,
        score=1.0,
        source="l1",
    )


def all_found(spec: TokenSpec, texts: Sequence[str]) -> list[ContextPassage]:
    """Passages of one document, the first text the most relevant and the last in the document."""
    return [found(spec, text, ordinal=len(texts) - index) for index, text in enumerate(texts)]
