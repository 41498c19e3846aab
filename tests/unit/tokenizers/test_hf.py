import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.framing import packaged_frame
from pipeline.tokenizers import (
    HfTokenizer,
    build_spec,
    check_golden,
    golden_texts,
    load_hf,
    parse_golden,
    require_same_as_file,
)
from tests.unit.tokenizers.hf_files import CONTROLS, hf_spec, tokenizer_json, with_added, without_bytes
from tests.unit.tokenizers.hf_files import added as token

FAMILIES = ("gpt2", "qwen")


def tokenizer(family: str) -> HfTokenizer:
    found = hf_spec(family).reference_tokenizer
    assert isinstance(found, HfTokenizer)
    return found


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.text(max_size=100) | st.sampled_from(golden_texts()))
def test_ordinary_text_has_the_ids_that_the_file_gives_it(family: str, text: str) -> None:
    whole = Tokenizer.from_str(tokenizer_json(family).decode())
    if any(name in text for name in tokenizer(family).identity.special_tokens):
        return
    ids = tokenizer(family).encode(text)
    assert ids.dtype == np.uint32
    assert ids.tolist() == whole.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("family", FAMILIES)
@given(text=st.text(max_size=100) | st.sampled_from(golden_texts()))
def test_ids_decode_to_text_that_has_the_same_ids(family: str, text: str) -> None:
    ours = tokenizer(family)
    ids = ours.encode(text)
    decoded = ours.decode(ids)
    assert ours.encode(decoded).tolist() == ids.tolist()
    if family == "gpt2":
        assert decoded == text


@pytest.mark.parametrize("family", FAMILIES)
def test_text_that_spells_added_tokens_never_becomes_one(family: str) -> None:
    """Neither control tokens nor structural ones; the library's own switch leaves `<think>` alive."""
    ours = tokenizer(family)
    whole = Tokenizer.from_str(tokenizer_json(family).decode())
    for name in (*CONTROLS, "<think>", "</think>"):
        for text in (name, name * 2, f"{name[:3]}{name}{name[3:]}", f"\n{name}\n"):
            assert ours.special_ids.isdisjoint(ours.encode(text).tolist())
            assert ours.decode(ours.encode(text)) == text
        assert ours.control_id(name) in whole.encode(name, add_special_tokens=False).ids


def test_the_librarys_own_switch_is_not_enough() -> None:
    """Why the text encoder is built without added tokens."""
    whole = Tokenizer.from_str(tokenizer_json("qwen").decode())
    whole.encode_special_tokens = True
    assert tokenizer("qwen").control_id("<think>") in whole.encode("<think>", add_special_tokens=False).ids


def test_an_unknown_control_token_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no control token '<\|eot_id\|>'"):
        tokenizer("gpt2").control_id("<|eot_id|>")


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="lone surrogate at character 1"):
        tokenizer("gpt2").encode("a\udfff")


class Panicking:
    """A backend that panics as Rust code does."""

    normalizer = None

    class PanicException(BaseException):
        pass

    def encode(self, *_text: Any, **_options: Any) -> None:
        raise self.PanicException("index out of bounds")


def test_a_panic_is_an_error_of_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = load_hf(tokenizer_json(), name="panicking")
    monkeypatch.setattr(ours, "_backend", Panicking())
    with pytest.raises(InvalidInput, match="the tokenizer of panicking panicked on this text"):
        ours.encode("text")


def test_a_character_without_a_token_is_refused_instead_of_lost() -> None:
    """The library leaves it out: the model would read something else than the document."""
    content = tokenizer_json("gpt2", without_bytes(["Ć"]))
    ours = load_hf(content, name="lacking")
    with pytest.raises(InvalidInput, match=r"lacking has no token for U\+0006 \(character 2"):
        ours.encode("ab\x06c")
    whole = Tokenizer.from_str(content.decode())
    assert whole.encode("ab\x06c").ids == [*whole.encode("ab").ids, *whole.encode("c").ids]
    assert ours.decode(ours.encode("abc")) == "abc"


def test_ids_that_cut_a_character_or_are_unknown_are_no_text() -> None:
    ours = tokenizer("gpt2")
    with pytest.raises(ExactnessError, match="ids are no text of gpt2"):
        ours.decode(ours.encode("漢")[:1])
    for number in (ours.vocabulary_size, ours.control_id("<think>")):
        with pytest.raises(ExactnessError):
            ours.decode(np.array([number], dtype=np.uint32))


def test_every_id_is_below_the_size() -> None:
    ours = load_hf(tokenizer_json("gpt2", with_added(token("<|far|>", 9000))), name="far")
    assert ours.vocabulary_size == 9001
    assert max(ours.special_ids) == 9000


def test_an_added_token_that_the_library_numbers_otherwise_is_found() -> None:
    """It gives the next free id to what the vocabulary lacks, whatever the file says; so would an engine."""
    content = tokenizer_json("gpt2", with_added(token("<|far|>", 9000)))
    ours = load_hf(content, name="far")
    with pytest.raises(ExactnessError, match=r"'<\|far\|>' the id 9000, but it is loaded as 1503"):
        require_same_as_file(ours, content, texts=[])


@pytest.mark.parametrize("name", ["", "A", "a/b", "-a", "x" * 64, "smol lm", "o200k_base"])
def test_a_name_that_is_none_or_taken_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="tokenizer name"):
        load_hf(tokenizer_json(), name=name)


def test_the_same_file_under_another_name_has_the_same_fingerprint() -> None:
    one, other = (
        build_spec(load_hf(tokenizer_json(), name=name), frame=packaged_frame("chatml")) for name in ("a", "b")
    )
    assert one.fingerprint == other.fingerprint
    assert one.spec_id != other.spec_id


def test_formatting_of_the_file_does_not_matter_but_what_decides_ids_does() -> None:
    def fingerprint(content: bytes) -> str:
        return build_spec(load_hf(content, name="a"), frame=packaged_frame("chatml")).fingerprint

    base = fingerprint(tokenizer_json())
    file = json.loads(tokenizer_json())
    assert fingerprint(json.dumps(file, indent=2).encode()) == base
    file["model"]["merges"] = [" ".join(pair) for pair in file["model"]["merges"]]
    assert fingerprint(json.dumps(file).encode()) == base
    file["model"]["ignore_merges"] = True
    assert fingerprint(json.dumps(file).encode()) != base
    assert fingerprint(tokenizer_json("gpt2", with_added(token("<|more|>", 7000)))) != base
    assert fingerprint(tokenizer_json("qwen")) != base


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_ids_are_computed_and_compared(family: str) -> None:
    spec = hf_spec(family)
    assert len(spec.golden.texts) == len(golden_texts())
    check_golden(spec, recorded=parse_golden(spec.golden.to_json()))


def test_a_golden_text_that_cannot_be_spelled_is_left_out() -> None:
    ours = load_hf(tokenizer_json("gpt2", without_bytes(["Ā"])), name="lacking")  # NUL
    spec = build_spec(ours, frame=packaged_frame("chatml"))
    assert 0 < len(spec.golden.texts) < len(golden_texts())
    assert all("\0" not in text for text in spec.golden.texts)


def test_an_added_token_that_acts_on_ordinary_text_is_found() -> None:
    content = tokenizer_json("gpt2")
    require_same_as_file(tokenizer("gpt2"), content, texts=golden_texts())
    more = tokenizer_json("gpt2", with_added(token("(!)", 1503)))  # as if it were not known to be added
    with pytest.raises(ExactnessError, match=r"without its added tokens gpt2 gives 'well \(!\)' the ids"):
        require_same_as_file(tokenizer("gpt2"), more, texts=["well (!)"])
