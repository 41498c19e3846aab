from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.tokenizers import check_golden, golden_texts, load_spec, packaged_golden, parse_golden
from tests.unit.tokenizers.reference import ENCODINGS, SPECS, official
from tests.unit.tokenizers.variants import gpt2_chat


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_recorded_ids_are_what_tiktoken_computes(encoding: str) -> None:
    recorded = packaged_golden(encoding)
    assert [ids.tolist() for ids in recorded.ids] == [
        official(encoding).encode_ordinary(text) for text in recorded.texts
    ]


@pytest.mark.parametrize("spec_id", SPECS)
def test_a_process_with_the_same_ids_is_ready(spec_id: str) -> None:
    spec = load_spec(spec_id)
    check_golden(spec)
    check_golden(spec, recorded=parse_golden(spec.golden.to_json()))


def test_a_process_that_computes_one_other_id_is_not_ready() -> None:
    spec = load_spec("o200k_base/plain")
    wrong = spec.golden.ids[5] + np.uint32(1)
    recorded = replace(spec.golden, ids=(*spec.golden.ids[:5], wrong, *spec.golden.ids[6:]))
    with pytest.raises(ExactnessError, match="no longer gives the golden ids of 'Hello, world!'"):
        check_golden(spec, recorded=recorded)


def test_missing_ids_are_no_agreement() -> None:
    spec = load_spec("o200k_base/plain")
    with pytest.raises(ExactnessError, match="ids for 3"):
        check_golden(spec, recorded=replace(spec.golden, ids=spec.golden.ids[:3]))


def test_an_encoding_without_recorded_ids_needs_some() -> None:
    with pytest.raises(InvalidInput, match="no golden ids are packaged for 'variant'"):
        check_golden(gpt2_chat())


def test_golden_texts_are_all_different_and_hold_special_tokens() -> None:
    assert len(set(golden_texts())) == len(golden_texts()) > 40
    assert any("<|endoftext|>" in text for text in golden_texts())


@pytest.mark.parametrize(
    "data", ["", "{}", "[]", '{"texts": ["a"], "ids": [["x"]]}', '{"texts": ["a"], "ids": [[-1]]}']
)
def test_malformed_golden_ids_are_refused(data: str) -> None:
    with pytest.raises(InvalidInput, match="malformed"):
        parse_golden(data)
