import random
import unicodedata

import numpy as np
import pytest
from tokenizers import normalizers

from pipeline.tokenizers.unicode_versions import inert_characters, is_assigned, is_composed

NFC = normalizers.NFC()


def test_what_is_called_composed_stays_as_it_is_in_any_order() -> None:
    characters = [chr(point) for point in np.flatnonzero(inert_characters())]
    assert len(characters) > 250_000
    for seed in range(3):
        random.Random(seed).shuffle(characters)
        text = "".join(characters)
        assert NFC.normalize_str(text) == text
        assert unicodedata.normalize("NFC", text) == text


@pytest.mark.parametrize(
    "text", ["e\u0301", "\u0301", "\u212b", "\u1161", "\u11a8", "\u0c3c", "\u0344", "\u0378", "\U0002f800", "a\u093c"]
)
def test_what_composes_decomposes_or_moves_is_not(text: str) -> None:
    assert not is_composed(text)


@pytest.mark.parametrize("text", ["", "plain", "café", "Привет", "漢字", "한글", "\u2019", "👍"])
def test_ordinary_text_is(text: str) -> None:
    assert is_composed(text)


@pytest.mark.parametrize("text", ["", "a", "\u0301", "漢", "\ue000", "\U0010fffd", "👍"])
def test_what_python_knows_is_assigned(text: str) -> None:
    assert is_assigned(text)


@pytest.mark.parametrize("text", ["\u0378", "a\U0010ffff", "\U0003fffe"])
def test_what_python_does_not_know_is_not(text: str) -> None:
    assert not is_assigned(text)
