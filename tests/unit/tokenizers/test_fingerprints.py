from dataclasses import replace

import numpy as np
import pytest

from pipeline.framing import Frame, Text, packaged_frame
from pipeline.tokenizers import TokenizerIdentity, load_spec, spec_fingerprint

PLAIN = packaged_frame("plain")
IDENTITY = TokenizerIdentity(vocabulary_sha256="ab" * 32, pattern=r"\s+", special_tokens={"<a>": 1, "<b>": 2})
GOLDEN = (np.array([1, 2], dtype=np.uint32), np.array([3], dtype=np.uint32))


def test_fingerprints_never_change_by_accident() -> None:
    """A change here empties every cache in the world; it wants a new domain and a changelog entry."""
    assert load_spec("o200k_base/plain").fingerprint == "5660f5e2c6745d2137d0635ba0e538aa"
    assert load_spec("cl100k_base/plain").fingerprint == "0cd953987309ede077c194084ee47aea"
    assert load_spec("o200k_harmony/harmony").fingerprint == "ca2400afbc3df3016985d34bed5fd40c"


def test_equal_ids_of_text_with_other_special_tokens_have_a_fingerprint_of_their_own() -> None:
    base, harmony = load_spec("o200k_base/plain"), load_spec("o200k_harmony/plain")
    assert [ids.tolist() for ids in base.golden.ids] == [ids.tolist() for ids in harmony.golden.ids]
    assert base.fingerprint != harmony.fingerprint


def test_the_order_of_special_tokens_does_not_matter() -> None:
    turned = replace(IDENTITY, special_tokens={"<b>": 2, "<a>": 1})
    assert spec_fingerprint(turned, frame=PLAIN, golden_ids=GOLDEN) == spec_fingerprint(
        IDENTITY, frame=PLAIN, golden_ids=GOLDEN
    )


@pytest.mark.parametrize(
    "identity",
    [
        replace(IDENTITY, vocabulary_sha256="ac" * 32),
        replace(IDENTITY, pattern=r"\s"),
        replace(IDENTITY, special_tokens={"<a>": 1}),
        replace(IDENTITY, special_tokens={"<a>": 1, "<b>": 3}),
        replace(IDENTITY, normalizer='{"type":"NFC"}'),
        replace(IDENTITY, options='{"add_prefix_space":true}'),
        replace(IDENTITY, pattern=r"\s+<", special_tokens={"a>": 1, "<b>": 2}),
    ],
)
def test_all_that_decides_the_ids_of_a_text_changes_the_fingerprint(identity: TokenizerIdentity) -> None:
    assert spec_fingerprint(identity, frame=PLAIN, golden_ids=GOLDEN) != spec_fingerprint(
        IDENTITY, frame=PLAIN, golden_ids=GOLDEN
    )


@pytest.mark.parametrize(
    "frame",
    [
        replace(PLAIN, name="other"),
        replace(PLAIN, prefix=()),
        replace(PLAIN, header="Doc {n}\n"),
        replace(PLAIN, separator="\n"),
        replace(PLAIN, question_prefix="Question:"),
        replace(PLAIN, suffix=(Text("\n\nAnswer: "),)),
    ],
)
def test_every_part_of_the_frame_changes_the_fingerprint(frame: Frame) -> None:
    assert spec_fingerprint(IDENTITY, frame=frame, golden_ids=GOLDEN) != spec_fingerprint(
        IDENTITY, frame=PLAIN, golden_ids=GOLDEN
    )


@pytest.mark.parametrize("ids", [[[1, 2], [4]], [[1], [2, 3]], [[1, 2, 3], []], [[1, 2], [3], []]])
def test_golden_ids_as_computed_change_the_fingerprint(ids: list[list[int]]) -> None:
    computed = [np.array(row, dtype=np.uint32) for row in ids]
    assert spec_fingerprint(IDENTITY, frame=PLAIN, golden_ids=computed) != spec_fingerprint(
        IDENTITY, frame=PLAIN, golden_ids=GOLDEN
    )
