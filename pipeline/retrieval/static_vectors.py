"""Dense vectors without a neural network: the mean of one learned vector per token.

Only the files of the `wordllama` wheel are used (importing the package would reconfigure logging, and its own encoder
pads every text to the longest). Their SHA-256 is pinned, so equal names mean equal vectors on every machine.

Nothing here starts a thread: texts are tokenized one by one, because the tokenizer's batch calls start a pool that does
not survive a fork.
"""

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pipeline.errors import ConfigurationError
from pipeline.retrieval.embedding import unit_vectors

DIMENSION: Final = 256
"""Length of a vector."""

_PACKAGE = "wordllama"
_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_SHA256 = {
    _WEIGHTS: "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    _TOKENIZER: "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
}
_VOCABULARY_SIZE = 32_000
_DATA_OFFSET = 96
"""Bytes of the safetensors header in the pinned file; one float16 matrix of (vocabulary, dimension) follows."""


class StaticVectors:
    """Encodes texts as means of token vectors; English above all.

    Holds 32 MiB. Safe to use from several threads and after a fork.
    """

    name = f"wordllama-l2-supercat-{DIMENSION}@{_SHA256[_WEIGHTS][:8]}"
    dimension = DIMENSION

    def __init__(self, *, weights: NDArray[np.float32], tokenizer: Tokenizer) -> None:
        self._weights = weights
        self._tokenizer = tokenizer

    @classmethod
    def load(cls) -> Self:
        """Read the packaged weights and their tokenizer: 0.1 s.

        Raises:
            ConfigurationError: The package is not installed, or its files are not the pinned ones.
        """
        halves = np.fromfile(
            _checked_file(_WEIGHTS), dtype="<f2", offset=_DATA_OFFSET, count=_VOCABULARY_SIZE * DIMENSION
        )
        tokenizer = Tokenizer.from_file(str(_checked_file(_TOKENIZER)))
        tokenizer.encode_special_tokens = True  # "<s>" in a text is three characters
        return cls(weights=halves.reshape(-1, DIMENSION).astype(np.float32), tokenizer=tokenizer)

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return unit vectors of shape (texts, 256); a text without tokens becomes the first axis.

        Each text costs about a kilobyte a token while it is summed, so this is for passages, not for documents.
        """
        sums = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        for row, text in enumerate(texts):
            ids = self._tokenizer.encode(text, add_special_tokens=False).ids
            self._weights.take(ids, axis=0).sum(axis=0, out=sums[row])  # the sum has the mean's direction
        return unit_vectors(sums)


def _checked_file(relative: str) -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(f"static embeddings need the package {_PACKAGE}, which is not installed")
    path = Path(spec.submodule_search_locations[0]) / relative
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise ConfigurationError(f"the package {_PACKAGE} lacks {relative}") from error
    if found != _SHA256[relative]:
        raise ConfigurationError(f"{relative} of the package {_PACKAGE} is not the pinned file (SHA-256 {found})")
    return path
