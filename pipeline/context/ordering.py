"""Which hits may stand together in a prompt, and in which order."""

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol, TypeAlias, TypeVar, assert_never

from pipeline.context.passages import ContextPassage

Order: TypeAlias = Literal["relevance", "stable"]
"""`relevance`: as found. `stable`: by document and ordinal, so that equal sets of passages make equal prompts."""


class Found(Protocol):
    """What ordering needs to know of a search hit."""

    @property
    def document_id(self) -> str:
        """Return the id of the document that was found."""
        ...

    @property
    def generation(self) -> int:
        """Return which generation of the document was found."""
        ...


class Keyed(Protocol):
    """What tells two hits with the same text."""

    @property
    def passage_key(self) -> str | bytes:
        """Return the name of the hit's text."""
        ...


FoundT = TypeVar("FoundT", bound=Found)
KeyedT = TypeVar("KeyedT", bound=Keyed)


def drop_older_generations(hits: Sequence[FoundT]) -> list[FoundT]:
    """Keep of each document only the hits of the newest generation among them, in their order.

    While a document is being republished a search can find points of two generations: never both in one prompt.
    """
    newest: dict[str, int] = {}
    for hit in hits:
        newest[hit.document_id] = max(hit.generation, newest.get(hit.document_id, hit.generation))
    return [hit for hit in hits if hit.generation == newest[hit.document_id]]


def drop_duplicates(hits: Iterable[KeyedT]) -> list[KeyedT]:
    """Keep each text once: the first hit with its passage key, so the most relevant where hits come by relevance."""
    first: dict[str | bytes, KeyedT] = {}
    for hit in hits:
        first.setdefault(hit.passage_key, hit)
    return list(first.values())


def order_passages(passages: Sequence[ContextPassage], *, order: Order) -> list[ContextPassage]:
    """Return the passages in prompt order.

    Args:
        passages: By falling relevance.
        order: How they shall stand in the prompt.
    """
    match order:
        case "relevance":
            return list(passages)
        case "stable":
            return sorted(passages, key=lambda passage: (passage.document_id, passage.ordinal, passage.passage_key))
        case _:
            assert_never(order)
