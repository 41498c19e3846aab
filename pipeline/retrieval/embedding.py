"""Embeddings: what a passage or a question is to the vector index, and the seams towards what computes them.

Every embedding is a pair. The dense vector is never zero nor NaN, because cosine similarity of those is undefined and
an index may store them without a word; a text nothing is known about gets one fixed unit vector instead. The sparse
vector's indices are unique and ascending, because a malformed one can destroy an embedded shard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import anyio.to_thread
import numpy as np
from numpy.typing import NDArray

INLINE_QUERY_CHARACTERS = 16 * 1024
"""Questions of together at most this many characters are embedded on the event loop: some milliseconds."""


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Terms and their weights; what is left out weighs nothing. May be empty."""

    indices: tuple[int, ...]
    """Ids of terms, 32 bits, unique and ascending."""

    values: tuple[float, ...]
    """One finite weight per index."""

    @classmethod
    def of(cls, *, indices: Sequence[int], values: Sequence[float]) -> Self:
        """Bring weights into order; terms that share an id share its place and the greater weight.

        Raises:
            ValueError: There are not as many values as indices.
        """
        weights: dict[int, float] = {}
        for index, value in zip(indices, values, strict=True):
            weights[index] = max(value, weights.get(index, value))
        order = sorted(weights)
        return cls(indices=tuple(order), values=tuple(weights[index] for index in order))


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """What stands for one text in the vector index."""

    dense: NDArray[np.float32]
    """Unit vector of shape (dimension,)."""

    sparse: SparseVector
    """BM25 weights without inverse document frequency, which the index applies."""


class DenseEncoder(Protocol):
    """Turns texts into dense vectors in memory."""

    @property
    def name(self) -> str:
        """Identity of model, weights and dimension: equal names give equal vectors."""
        ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of shape (texts, dimension)."""
        ...


class SparseEncoder(Protocol):
    """Turns texts into weighted terms in memory."""

    @property
    def name(self) -> str:
        """Identity of the method and its parameters."""
        ...

    def encode_passage(self, text: str) -> SparseVector:
        """Weigh the terms of a text to be found."""
        ...

    def encode_query(self, text: str) -> SparseVector:
        """Weigh the terms of a question."""
        ...


class PassageEmbedder(Protocol):
    """Embeds what is to be found; used by workers."""

    @property
    def name(self) -> str:
        """Identity, model and dimension in it; a corpus remembers it."""
        ...

    @property
    def dimension(self) -> int:
        """Length of the dense vectors."""
        ...

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed passages, in order.

        Raises:
            Unavailable: An outside service did not answer, refused us, or its vectors are not of this dimension: no
                text is to blame.
            InvalidInput: It refused a text.
        """
        ...

    def close(self) -> None:
        """Give up connections."""
        ...


class QueryEmbedder(Protocol):
    """Embeds questions; used on the read path."""

    @property
    def name(self) -> str:
        """Identity, equal to that of the embedder of the passages searched."""
        ...

    @property
    def dimension(self) -> int:
        """Length of the dense vectors."""
        ...

    async def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed questions, in order; raises what `PassageEmbedder.embed_passages` does."""
        ...

    async def aclose(self) -> None:
        """Give up connections."""
        ...


class HybridEmbedder:
    """Embeds passages and questions in this process, dense and sparse; needs no service and holds no connection."""

    def __init__(self, *, dense: DenseEncoder, sparse: SparseEncoder) -> None:
        self._dense = dense
        self._sparse = sparse
        self.name = hybrid_name(dense.name, sparse.name)
        self.dimension = dense.dimension

    def __repr__(self) -> str:
        return f"HybridEmbedder({self.name})"

    def embed_passages(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed passages, in order."""
        vectors = self._dense.encode(texts)
        return [
            Embedding(vector, self._sparse.encode_passage(text)) for vector, text in zip(vectors, texts, strict=True)
        ]

    async def embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        """Embed questions, in order; much text does not hold up the event loop."""
        if sum(map(len, texts)) > INLINE_QUERY_CHARACTERS:
            return await anyio.to_thread.run_sync(self._embed_queries, texts)
        return self._embed_queries(texts)

    def _embed_queries(self, texts: Sequence[str]) -> list[Embedding]:
        vectors = self._dense.encode(texts)
        return [Embedding(vector, self._sparse.encode_query(text)) for vector, text in zip(vectors, texts, strict=True)]

    def close(self) -> None:
        """Nothing is held."""

    async def aclose(self) -> None:
        """Nothing is held."""


def hybrid_name(dense: str, sparse: str) -> str:
    """Return the identity of an embedder made of these two."""
    return f"{dense}+{sparse}"


def unit_vectors(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scale each row to length 1; a row without a direction becomes the first axis.

    Args:
        vectors: Shape (n, dimension); may hold zeros, NaN, infinities.

    Returns:
        Float32 of the same shape, every row finite and of length 1.
    """
    wide = vectors.astype(np.float64)
    wide[~np.isfinite(wide).all(axis=1)] = 0.0
    largest = np.abs(wide).max(axis=1, initial=0.0)
    directed = largest > 0.0
    wide[directed] /= largest[directed, None]  # first, so that squares neither overflow nor vanish
    wide[directed] /= np.linalg.norm(wide[directed], axis=1, keepdims=True)
    wide[~directed, 0] = 1.0
    return wide.astype(np.float32)
