from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.errors import ExactnessError, InvalidInput
from pipeline.tokenizers import (
    TiktokenTokenizer,
    build_spec,
    encode_header,
    load_ranks,
    load_spec,
    load_tiktoken,
    registry,
    vocabulary_definition,
)
from tests.unit.tokenizers.reference import SPECS, official
from tests.unit.tokenizers.variants import CHAT, GPT2_PATTERN, PLAIN, cl100k_chat, tokenizer_with_pattern


@pytest.mark.parametrize("spec_id", SPECS)
def test_a_spec_knows_the_ids_of_its_frame(spec_id: str) -> None:
    spec = load_spec(spec_id)
    theirs = official(spec.encoding)
    assert spec.spec_id == spec_id
    assert spec.prefix_ids.tolist() == theirs.encode_ordinary(PLAIN.prefix[0].text)  # type: ignore[union-attr]  # a text
    for number in (1, 9, 10, 99, 100, 128, 129, 1000, 123_456):
        assert encode_header(spec, number).tolist() == theirs.encode_ordinary(f"Document {number}\n")


def test_prepared_ids_cannot_be_written_to() -> None:
    spec = load_spec("o200k_base/plain")
    with pytest.raises(ValueError, match="read-only"):
        spec.prefix_ids[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        encode_header(spec, 1)[0] = 1


@pytest.mark.parametrize(
    ("spec_id", "message"),
    [
        ("o200k_base", "not like .*cl100k_base, o200k_base, o200k_harmony; known frames: .*plain"),
        ("o200k/plain", "unknown encoding 'o200k'; known: cl100k_base, o200k_base"),
        ("o200k_base/fancy", "unknown frame 'fancy'; known: .*plain"),
        ("/", "unknown frame ''"),
        ("", "not like"),
    ],
)
def test_an_unknown_spec_is_refused_with_the_known_names(spec_id: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load_spec(spec_id)


def test_a_burst_of_threads_builds_a_spec_once(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[str] = []

    def counted(encoding: str) -> TiktokenTokenizer:
        built.append(encoding)
        return load_tiktoken(encoding)

    monkeypatch.setattr(registry, "load_tiktoken", counted)
    monkeypatch.setattr(registry, "_specs", {})
    monkeypatch.setattr(registry, "_tokenizers", {})
    with ThreadPoolExecutor(8) as pool:
        specs = list(pool.map(load_spec, ["cl100k_base/plain"] * 32))
    assert built == ["cl100k_base"]
    assert len({id(spec) for spec in specs}) == 1


def test_a_frame_whose_control_tokens_the_vocabulary_lacks_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"no control token '<\|fim_suffix\|>'"):
        build_spec(load_spec("o200k_base/plain").tokenizer, frame=CHAT)


def test_control_tokens_become_their_ids_once() -> None:
    spec = cl100k_chat()
    control = [index for index, token in enumerate(spec.prefix_ids) if int(token) in spec.tokenizer.special_ids]
    assert spec.prefix_ids[0] == spec.tokenizer.control_id("<|endoftext|>")
    assert len(control) == 2


def test_a_tokenizer_that_cuts_before_a_letter_otherwise_than_at_the_end_cannot_have_a_plain_frame() -> None:
    """The ids of a context would not be the beginning of its prompt's."""
    with pytest.raises(ExactnessError, match="does not cut after the prefix of frame plain"):
        build_spec(tokenizer_with_pattern(GPT2_PATTERN), frame=PLAIN)


def test_a_tokenizer_with_a_token_across_a_seam_is_refused() -> None:
    definition = vocabulary_definition("cl100k_base").model_copy(update={"pattern": r"[\s\S]+"})
    crossing = TiktokenTokenizer(definition, ranks={**load_ranks(definition), b"\nD": 100_256})
    with pytest.raises(ExactnessError, match="does not cut after the header of frame plain"):
        build_spec(crossing, frame=PLAIN)
