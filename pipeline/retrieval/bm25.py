"""Sparse vectors: BM25's term weights, computed here; the index multiplies by inverse document frequency.

Terms are words in Unicode's sense (Chinese, Japanese and Thai are segmented), lower case, without English stop words,
stemmed as English, hashed to 32 bits. Recall on the sample corpus equals that of the word-only tokenizer.
"""

from qdrant_edge import Bm25, Bm25Config, TokenizerType

from pipeline.retrieval.embedding import SparseVector

_AVERAGE_TERMS = 100.0
"""Terms of an average passage of at most 2,000 characters (measured: 101 on the sample corpus).

The library's own 256 costs 7 of 168 questions with BM25 alone."""

_TERM_SATURATION = 1.2
_LENGTH_PENALTY = 0.75

_VERSION = 1
"""Of what the library computes, not of the library: raised when the pinned terms in `test_bm25` change, since a corpus
embedded with other terms cannot be searched with these."""


class Bm25Terms:
    """Weighs the terms of passages and questions."""

    name = f"bm25-multilingual-english-k{_TERM_SATURATION}-b{_LENGTH_PENALTY}-avg{_AVERAGE_TERMS:.0f}@v{_VERSION}"

    def __init__(self) -> None:
        self._model = Bm25(
            Bm25Config(
                k=_TERM_SATURATION,
                b=_LENGTH_PENALTY,
                avg_len=_AVERAGE_TERMS,
                tokenizer=TokenizerType.Multilingual,
                language="english",
            )
        )

    def encode_passage(self, text: str) -> SparseVector:
        """Weigh terms by how often they occur, against the text's length; empty for a text without terms."""
        vector = self._model.embed_document(text)
        return SparseVector.of(indices=vector.indices, values=vector.values)

    def encode_query(self, text: str) -> SparseVector:
        """Give each different term the weight 1."""
        vector = self._model.embed_query(text)
        return SparseVector.of(indices=vector.indices, values=vector.values)
