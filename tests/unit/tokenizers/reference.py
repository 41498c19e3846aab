"""tiktoken's own encodings under their own names: the oracle from outside. Seeded in a private folder, no network."""

import gzip
import hashlib
from functools import cache
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import tiktoken

from pipeline.tokenizers import vocabulary_definition

ENCODINGS = ("cl100k_base", "o200k_base", "o200k_harmony")
SPECS = tuple(f"{encoding}/plain" for encoding in ENCODINGS)


@cache
def official(encoding: str) -> tiktoken.Encoding:
    """Load an encoding the way any user of tiktoken does."""
    definition = vocabulary_definition(encoding)
    packed = resources.files(definition.package).joinpath(definition.resource).read_bytes()
    ranks = Path(definition.resource).stem  # o200k_harmony has those of o200k_base
    url = f"https://openaipublic.blob.core.windows.net/encodings/{ranks}"
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as environment:
        Path(folder, hashlib.sha1(url.encode()).hexdigest()).write_bytes(gzip.decompress(packed))
        environment.setenv("TIKTOKEN_CACHE_DIR", folder)
        return tiktoken.get_encoding(encoding)
