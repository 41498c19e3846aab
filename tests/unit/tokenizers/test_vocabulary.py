import pytest

from pipeline.errors import ConfigurationError, InvalidInput
from pipeline.tokenizers import known_encodings, load_ranks, vocabulary_definition


def test_an_unknown_encoding_is_refused_with_the_known_names() -> None:
    with pytest.raises(InvalidInput, match="'p50k'; known: cl100k_base, o200k_base, o200k_harmony"):
        vocabulary_definition("p50k")


@pytest.mark.parametrize("encoding", known_encodings())
def test_definitions_are_named_as_their_file_and_hold_their_special_ids(encoding: str) -> None:
    definition = vocabulary_definition(encoding)
    assert definition.encoding == encoding
    assert max(definition.special_tokens.values()) == definition.vocabulary_size - 1


def test_other_bytes_than_the_pinned_ones_are_refused() -> None:
    changed = vocabulary_definition("cl100k_base").model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ConfigurationError, match=r"has SHA-256 223921b7.*, not the pinned 0000"):
        load_ranks(changed)


@pytest.mark.parametrize("update", [{"package": "no_such_package"}, {"resource": "data/none.gz"}])
def test_a_missing_vocabulary_is_named(update: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="vocabulary of cl100k_base is in package"):
        load_ranks(vocabulary_definition("cl100k_base").model_copy(update=update))
