"""Which document ids came already in a stream of any length: 8 bytes each, where a set would need ten times that.

An id is known by 64 bits of its hash: two of a million ids collide with a probability of one in 36 million, and a
collision makes a count wrong by one, nothing else.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class SeenIds:
    """A growing set: sorted arrays, each at least twice as long as the next one."""

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.uint64]] = []

    def __len__(self) -> int:
        return sum(len(array) for array in self._arrays)

    def add(self, ids: Sequence[str]) -> None:
        """Add ids, those that are in it already included."""
        hashes = np.unique(_hashes(ids))
        new = hashes[~self._known(hashes)]
        while self._arrays and len(self._arrays[-1]) < 2 * len(new):
            new = np.sort(np.concatenate([self._arrays.pop(), new]))
        if len(new):
            self._arrays.append(new)

    def known(self, ids: Sequence[str]) -> list[bool]:
        """Return for each id whether it was added."""
        return [bool(known) for known in self._known(_hashes(ids))]

    def _known(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        known = np.zeros(len(hashes), dtype=np.bool_)
        for array in self._arrays:
            places = np.minimum(np.searchsorted(array, hashes), len(array) - 1)
            known |= array[places] == hashes
        return known


def _hashes(ids: Sequence[str]) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b(document_id.encode(), digest_size=8).digest() for document_id in ids)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)
