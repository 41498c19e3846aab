"""Entries of many passages as columns: what a worker writes, without an object for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InvalidInput
from pipeline.framing.ragged import RaggedIds
from pipeline.token_cache.codec import MAX_IDS, Entry


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """Entries of n passages under one spec. Iterating yields pairs of a passage key and an entry.

    Raises:
        InvalidInput: A passage has no ids at all, or more than `MAX_IDS`; or the columns differ in length.
    """

    passage_keys: Sequence[bytes]
    """n keys, 16 bytes each."""
    ids: RaggedIds
    """Token ids of n passages."""
    right_safe: NDArray[np.bool_]
    """n: whether the ids are the same whatever the frame puts after the separator."""

    def __post_init__(self) -> None:
        if not len(self.passage_keys) == len(self.ids) == len(self.right_safe):
            raise InvalidInput("there must be a key, ids and an edge for every passage")
        sizes = self.ids.sizes
        if sizes.size and not 0 < sizes.min() <= sizes.max() <= MAX_IDS:
            raise InvalidInput(f"an entry needs 1 to {MAX_IDS} ids")

    def __len__(self) -> int:
        return len(self.passage_keys)

    def __iter__(self) -> Iterator[tuple[bytes, Entry]]:
        for key, ids, right_safe in zip(self.passage_keys, self.ids, self.right_safe.tolist(), strict=True):
            yield key, Entry(ids, right_safe)

    @classmethod
    def of(cls, pairs: Sequence[tuple[bytes, Entry]]) -> "Entries":
        """Return columns of pairs, copied."""
        return cls(
            [key for key, _ in pairs],
            RaggedIds.of([entry.ids for _, entry in pairs]),
            np.array([entry.right_safe for _, entry in pairs], dtype=np.bool_),
        )

    def parts(self, size: int) -> Iterator["Entries"]:
        """Yield so many of them at a time, over the same memory."""
        for start in range(0, len(self), size):
            which = slice(start, start + size)
            yield Entries(self.passage_keys[which], self.ids.part(which), self.right_safe[which])
