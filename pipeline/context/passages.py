"""A passage on its way into a prompt: where it was found and the ids its cache entry holds."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from pipeline.framing import TokenIds

Source: TypeAlias = Literal["l1", "l2", "miss", "off"]
"""Where ids came from: memory, Redis, computed because absent, computed because caching is off."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContextPassage:
    """One found passage with its ids."""

    passage_key: bytes
    """Names the whole passage by its content, 16 bytes; also where it is cut."""
    ids: TokenIds
    """Ids of passage and separator, as the entry holds them or the cut has made them; they decode to that text."""
    right_safe: bool
    """False: the ids depend on what stands beside them, and only their text may be used."""
    document_id: str
    ordinal: int
    """Position of the passage in its document, from 0."""
    generation: int
    score: float
    source: Source
    cut: bool = False
    """Whether only the beginning of the passage is here, for want of room."""

    @property
    def token_count(self) -> int:
        """Return the number of ids: the separator's included, the header's not."""
        return len(self.ids)
