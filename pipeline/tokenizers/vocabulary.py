"""Vocabularies as data: a definition per encoding, whose rank file comes from an installed package.

Nothing is ever fetched. The rank file must have the SHA-256 that tiktoken itself pins for the encoding; a package that
ships other bytes is refused.
"""

import gzip
import hashlib
from binascii import a2b_base64
from importlib import resources

from pydantic import BaseModel, ConfigDict

from pipeline.errors import ConfigurationError, InvalidInput

_DEFINITIONS = resources.files("pipeline.tokenizers") / "vocabularies"


class VocabularyDefinition(BaseModel):
    """One encoding: where its ranks are, how text is split, what is special."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: str
    package: str
    """Installed package that ships the rank file."""
    resource: str
    """Path of the gzipped rank file inside that package."""
    sha256: str
    """SHA-256 of the unpacked rank file, hex, as tiktoken pins it."""
    vocabulary_size: int
    """Every id is below this, the special ones included."""
    pattern: str
    special_tokens: dict[str, int]


def known_encodings() -> list[str]:
    """Return the names of the packaged encodings, sorted."""
    return sorted(entry.name.removesuffix(".json") for entry in _DEFINITIONS.iterdir() if entry.name.endswith(".json"))


def vocabulary_definition(encoding: str) -> VocabularyDefinition:
    """Return the definition of a packaged encoding.

    Raises:
        InvalidInput: There is none of that name; the message names those there are.
    """
    known = known_encodings()
    if encoding not in known:
        raise InvalidInput(f"unknown encoding {encoding!r}; known: {', '.join(known)}", item="encoding")
    return VocabularyDefinition.model_validate_json((_DEFINITIONS / f"{encoding}.json").read_bytes())


def read_rank_file(definition: VocabularyDefinition) -> bytes:
    """Read a rank file from its package and check it.

    Raises:
        ConfigurationError: The package is not installed, or its bytes are not the pinned ones.
    """
    try:
        packed = resources.files(definition.package).joinpath(definition.resource).read_bytes()
    except (ModuleNotFoundError, OSError) as error:
        raise ConfigurationError(
            f"the vocabulary of {definition.encoding} is in package {definition.package}, which lacks it: {error}"
        ) from error
    ranks = gzip.decompress(packed)
    found = hashlib.sha256(ranks).hexdigest()
    if found != definition.sha256:
        raise ConfigurationError(
            f"the vocabulary of {definition.encoding} in package {definition.package} has SHA-256 {found}, "
            f"not the pinned {definition.sha256}"
        )
    return ranks


def load_ranks(definition: VocabularyDefinition) -> dict[bytes, int]:
    """Return token bytes to id; lower ids merge first.

    Raises:
        ConfigurationError: The package is not installed, or its bytes are not the pinned ones.
    """
    words = read_rank_file(definition).split()  # a line is `TOKEN RANK`
    return dict(zip(map(a2b_base64, words[::2]), map(int, words[1::2]), strict=True))
