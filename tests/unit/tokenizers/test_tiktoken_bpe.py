import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.tokenizers import TiktokenTokenizer, golden_texts, load_spec, vocabulary_definition
from tests.unit.tokenizers.reference import ENCODINGS, official


def tokenizer(encoding: str) -> TiktokenTokenizer:
    found = load_spec(f"{encoding}/plain").reference_tokenizer
    assert isinstance(found, TiktokenTokenizer)
    return found


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_packaged_definition_is_tiktokens_own(encoding: str) -> None:
    definition, theirs = vocabulary_definition(encoding), official(encoding)
    assert definition.pattern == theirs._pat_str
    assert definition.special_tokens == theirs._special_tokens
    assert definition.vocabulary_size == theirs.n_vocab
    assert tokenizer(encoding)._bpe._mergeable_ranks == theirs._mergeable_ranks


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(max_size=200) | st.sampled_from(golden_texts()))
def test_ids_are_those_of_encode_ordinary_and_decode_to_the_text(encoding: str, text: str) -> None:
    ids = tokenizer(encoding).encode(text)
    assert ids.dtype == np.uint32
    assert ids.tolist() == official(encoding).encode_ordinary(text)
    assert tokenizer(encoding).decode(ids) == text


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_that_spells_special_tokens_never_becomes_special(encoding: str) -> None:
    ours = tokenizer(encoding)
    for name in ours.identity.special_tokens:
        for text in (name, name * 2, f"{name[:3]}{name}{name[3:]}", f"\n{name}\n"):
            assert ours.special_ids.isdisjoint(ours.encode(text).tolist())


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_control_tokens_are_found_by_name_only(encoding: str) -> None:
    ours = tokenizer(encoding)
    assert ours.control_id("<|endoftext|>") in ours.special_ids
    with pytest.raises(InvalidInput, match="no control token '<think>'"):
        ours.control_id("<think>")


def test_a_lone_surrogate_is_refused_instead_of_replaced() -> None:
    with pytest.raises(InvalidInput, match="lone surrogate at character 2"):
        tokenizer("o200k_base").encode("ab\ud800c")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("unit", ["a", "A", "漢", "e\u0301", "\u0301", ".", "/", "9", "\n", "\u200d", "👍", " \n", "'"])
def test_a_very_long_run_keeps_its_ids_and_takes_linear_time(encoding: str, unit: str) -> None:
    text = f"x{unit * 30_000}y"
    assert tokenizer(encoding).encode(text).tolist() == official(encoding).encode_ordinary(text)


def test_a_text_that_tiktoken_gives_up_on_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot encode this text"):
        tokenizer("o200k_base").encode("x" + " " * 1_000_000 + "y")


class PanicException(BaseException):
    """Named as the exception of a panicking Rust library, which does not derive from Exception."""


@pytest.mark.parametrize("call", ["encode", "decode"])
def test_a_panic_costs_only_that_text(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def panic(*_: object, **__: object) -> None:
        raise PanicException

    ours = tokenizer("cl100k_base")
    monkeypatch.setattr(ours._bpe, "encode_to_numpy", panic)
    monkeypatch.setattr(ours._bpe, "decode", panic)
    with pytest.raises(InvalidInput, match="panicked"):
        ours.encode("text") if call == "encode" else ours.decode(np.array([1], dtype=np.uint32))


def test_an_interrupt_is_not_mistaken_for_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    ours = tokenizer("cl100k_base")
    monkeypatch.setattr(ours._bpe, "encode_to_numpy", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ours.encode("text")


@pytest.mark.parametrize("ids", [[300_000], [2**32 - 1], [199_998], [222]])
def test_ids_that_are_no_text_are_refused(ids: list[int]) -> None:
    with pytest.raises(ExactnessError, match="no text of o200k_base"):
        tokenizer("o200k_base").decode(np.array(ids, dtype=np.uint32))
