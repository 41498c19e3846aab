"""Ids of many texts in one array: what a batch computes, without an array for each text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.framing.segments import NO_IDS, TokenIds


@dataclass(frozen=True, slots=True, eq=False)
class RaggedIds:
    """Ids of n texts, each a run within one array. Runs may have ids between them that belong to no text."""

    ids: TokenIds
    """All of them; nobody writes into it."""
    starts: NDArray[np.int64]
    """n positions of the first id of each text."""
    stops: NDArray[np.int64]
    """n positions one past the last id of each text."""

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> TokenIds:
        """Return the ids of one text: a view."""
        return self.ids[self.starts[index] : self.stops[index]]

    def __iter__(self) -> Iterator[TokenIds]:
        """Yield the ids of each text: views."""
        for start, stop in zip(self.starts.tolist(), self.stops.tolist(), strict=True):
            yield self.ids[start:stop]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Return the number of ids of each text."""
        return self.stops - self.starts

    def part(self, which: slice) -> "RaggedIds":
        """Return some of the texts, over the same memory."""
        return RaggedIds(self.ids, self.starts[which], self.stops[which])

    def trimmed(self) -> "RaggedIds":
        """Return the same texts over as much of the memory as they reach over."""
        if not len(self):
            return RaggedIds(NO_IDS, NO_POSITIONS, NO_POSITIONS)
        first = self.starts.min()
        return RaggedIds(self.ids[first : self.stops.max()], self.starts - first, self.stops - first)

    @classmethod
    def end_to_end(cls, ids: TokenIds, offsets: NDArray[np.int64]) -> "RaggedIds":
        """Return texts that follow each other without gaps.

        Args:
            ids: Made read-only.
            offsets: n + 1 positions: where each text starts, and where the last one stops.
        """
        ids.flags.writeable = False  # what is cut out of it is handed on without a copy
        return cls(ids, offsets[:-1], offsets[1:])

    @classmethod
    def of(cls, arrays: Sequence[TokenIds]) -> "RaggedIds":
        """Return the ids of texts that were encoded one by one, copied into one array."""
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(ids) for ids in arrays], out=offsets[1:])
        return cls.end_to_end(np.concatenate(arrays) if arrays else NO_IDS, offsets)

    @classmethod
    def concatenated(cls, parts: Sequence["RaggedIds"]) -> "RaggedIds":
        """Return the texts of several in order; one alone is returned as it is."""
        if len(parts) == 1:
            return parts[0]
        moves = np.cumsum([0, *(len(part.ids) for part in parts)])
        return cls(
            np.concatenate([NO_IDS, *(part.ids for part in parts)]),
            np.concatenate([NO_POSITIONS, *(part.starts + move for part, move in zip(parts, moves, strict=False))]),
            np.concatenate([NO_POSITIONS, *(part.stops + move for part, move in zip(parts, moves, strict=False))]),
        )


NO_POSITIONS: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
"""Of no texts."""
