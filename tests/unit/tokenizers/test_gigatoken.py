import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import Any

import awkward  # type: ignore[import-untyped]  # has no stubs
import numpy as np
import pytest
import structlog.testing
from prometheus_client import REGISTRY

from pipeline.errors import InvalidInput
from pipeline.framing import TokenIds
from pipeline.tokenizers import (
    GigatokenTwin,
    HfTokenizer,
    TiktokenTokenizer,
    Tokenizer,
    gigatoken,
    load_hf,
    load_recorded,
    load_spec,
    load_twin,
    registry,
    use_twins,
)
from pipeline.tokenizers.registry import RecordedSpec
from tests.support.real_tokenizers import real_spec
from tests.unit.context.test_shared_corpora import texts_of
from tests.unit.tokenizers.generated import generated_texts
from tests.unit.tokenizers.hf_files import hf_spec, tokenizer_json, with_part, without_bytes
from tests.unit.tokenizers.reference import ENCODINGS

pytest.importorskip("gigatoken")

VOCABULARIES = (*ENCODINGS, "gpt2", "qwen")
REAL_FILES = ("qwen3/chatml", "llama3/llama3")
"""Vocabularies of models, which take seconds to build."""


@cache
def reference(vocabulary: str) -> TiktokenTokenizer | HfTokenizer:
    if vocabulary in REAL_FILES:
        spec = real_spec(vocabulary)
    else:
        spec = load_spec(f"{vocabulary}/plain") if vocabulary in ENCODINGS else hf_spec(vocabulary)
    found = spec.reference_tokenizer
    assert isinstance(found, TiktokenTokenizer | HfTokenizer)
    return found


@cache
def twin(vocabulary: str) -> GigatokenTwin:
    found = load_twin(reference(vocabulary))
    assert isinstance(found, GigatokenTwin)
    return found


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("forefill_twin_checks_total", {"outcome": outcome}) or 0.0


class Liar:
    """What computes, wrongly from one call on."""

    def __init__(self, *, honest_calls: int, lie: Callable[[TokenIds], TokenIds]) -> None:
        self._true = gigatoken._built(reference("o200k_base"))
        self._left = honest_calls
        self._lie = lie
        self.calls = 0

    def encode(self, text: bytes) -> TokenIds:
        self.calls += 1
        ids = self._true.encode(text)
        return ids if self.calls <= self._left else self._lie(ids)

    def encode_batch(self, texts: list[bytes], /, *, parallel: bool) -> Any:
        assert not parallel
        return awkward.values_astype(awkward.Array([self.encode(text) for text in texts]), np.uint32)


def one_off(ids: TokenIds) -> TokenIds:
    return ids + np.uint32(1)


def crash(_ids: TokenIds) -> TokenIds:
    raise RuntimeError("Already borrowed")


class PanicException(BaseException):
    """Named as pyo3 names a panic."""


def panic(_ids: TokenIds) -> TokenIds:
    raise PanicException("index out of bounds")


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_generated_texts_have_the_ids_of_the_reference(vocabulary: str) -> None:
    assert_same(vocabulary, count=8_000, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("vocabulary", [*VOCABULARIES, *REAL_FILES])
def test_a_million_generated_texts_have_the_ids_of_the_reference(vocabulary: str) -> None:
    assert_same(vocabulary, count=1_000_000, seed=2)


def assert_same(vocabulary: str, *, count: int, seed: int) -> None:
    texts = generated_texts(count, seed=seed)
    while batch := list(islice(texts, 1000)):
        found = twin(vocabulary).encode_batch(batch)
        for text, ids in zip(batch, found, strict=True):
            expected = reference(vocabulary).encode(text)
            assert ids.dtype == np.uint32
            assert ids.tolist() == expected.tolist(), ascii(text)
    assert twin(vocabulary).is_trusted


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
@pytest.mark.parametrize(
    ("name", "every"), [("xquad", 5), ("blns", 1), ("python_docs", 3), pytest.param("xquad", 1, marks=pytest.mark.long)]
)
def test_real_texts_have_the_ids_of_the_reference(vocabulary: str, name: str, every: int) -> None:
    texts = [text for file in ("docs", "queries") for text in texts_of(f"{name}/{file}.jsonl")[::every]]
    texts += [text[start : start + 2000] for text in texts for start in range(0, len(text), 2000)]
    assert twin(vocabulary).first_difference(texts) is None


def test_a_twin_is_its_reference_in_all_but_speed() -> None:
    ours, theirs = twin("o200k_base"), reference("o200k_base")
    assert ours.reference is theirs
    assert theirs.reference is theirs
    for name in ("encoding", "source", "library", "identity", "vocabulary_size", "special_ids"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.decode(ours.encode("déjà vu")) == "déjà vu"
    assert ours.control_id("<|endoftext|>") == theirs.control_id("<|endoftext|>")
    with pytest.raises(InvalidInput, match="no control token"):
        ours.control_id("<|nothing|>")


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_text_stays_text(vocabulary: str) -> None:
    ours = twin(vocabulary)
    for name in ours.identity.special_tokens:
        assert not set(ours.encode(f"a{name} {name}").tolist()) & ours.special_ids


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_lone_surrogate_is_refused_as_by_the_reference(vocabulary: str) -> None:
    ours = twin(vocabulary)
    with pytest.raises(InvalidInput, match="lone surrogate at character 1"):
        ours.encode("a\ud800")
    with pytest.raises(InvalidInput, match="lone surrogate"):
        ours.encode_batch(["a", "b", "\udfff"])
    assert ours.is_trusted


def test_a_vocabulary_without_every_byte_has_no_twin_and_its_refusals_stay() -> None:
    lacking = load_hf(tokenizer_json("qwen", without_bytes("Ã")), name="lacking")
    ours = load_twin(lacking)
    assert ours is lacking
    for text in ("caf\u00e9", "cafe\u0301"):
        with pytest.raises(InvalidInput, match=r"no token for U\+00E9"):
            ours.encode(text)


def test_what_the_reference_gives_up_on_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot encode this text"):
        twin("o200k_base").encode(" " * 1_000_000)
    assert twin("o200k_base").is_trusted


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_a_character_newer_than_this_python_is_left_to_the_reference(vocabulary: str) -> None:
    texts = ["plain", *(f"{chr(point)}'ll" for point in (0x378, 0x2B73A, 0x323B0, 0x33479, 0x10FFFF)), "naïve"]
    found = twin(vocabulary).encode_batch(texts)
    assert [ids.tolist() for ids in found] == [reference(vocabulary).encode(text).tolist() for text in texts]


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_text_is_normalized_by_the_reference_whatever_its_version_of_unicode(form: str) -> None:
    normalizing = load_hf(tokenizer_json("qwen", with_part("normalizer", {"type": form})), name="normalizing")
    ours = load_twin(normalizing)
    assert isinstance(ours, GigatokenTwin)
    texts = ["e\u0301", "\u0344\u0c3c", "\u0a3f\U0001e2ed\U00011a47", "\ufb01", "\u1100\u1161\u11a8", "café", "漢字"]
    assert ours.first_difference([*texts, *generated_texts(2000, seed=3)]) is None


def test_a_lying_twin_is_out_at_the_first_check_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    liar = Liar(honest_calls=1000, lie=one_off)
    ours = GigatokenTwin(reference("o200k_base"), build=lambda: liar)
    texts = [f"text {number}" for number in range(1400)]
    expected = [ids.tolist() for ids in reference("o200k_base").encode_batch(texts)]
    same, differs = counted("same"), counted("differs")

    assert [ids.tolist() for ids in ours.encode_batch(texts[:900])] == expected[:900]
    assert (ours.is_trusted, counted("same")) == (True, same + 2)

    with structlog.testing.capture_logs() as logs:
        monkeypatch.setattr(gigatoken, "_log", structlog.get_logger())
        assert [ids.tolist() for ids in ours.encode_batch(texts)] == expected, "the lies of this batch, too"
    assert [line["event"] for line in logs] == ["tokenizer.twin_differs"]
    assert "text 1" not in str(logs)
    assert len(logs[0]["text_sha256"]) == 64
    assert (ours.is_trusted, counted("differs")) == (False, differs + 1)

    calls = liar.calls
    assert ours.encode("text 7").tolist() == expected[7]
    assert ours.encode_batch(texts[:3])[2].tolist() == expected[2]
    assert (liar.calls, counted("differs")) == (calls, differs + 1)


@pytest.mark.parametrize("failure", [crash, panic])
def test_a_twin_that_breaks_is_out_and_its_texts_are_encoded(failure: Callable[[TokenIds], TokenIds]) -> None:
    ours = GigatokenTwin(reference("o200k_base"), build=lambda: Liar(honest_calls=1, lie=failure))
    ours.encode("fine")
    assert ours.encode("abc").tolist() == reference("o200k_base").encode("abc").tolist()
    assert not ours.is_trusted


def test_one_text_in_five_hundred_is_checked() -> None:
    ours = GigatokenTwin(reference("o200k_base"), build=lambda: gigatoken._built(reference("o200k_base")))
    before = counted("same")
    for _ in range(501):
        ours.encode("a")
    ours.encode_batch(["b"] * 999)
    assert counted("same") == before + 3


def test_a_twin_that_differs_at_start_is_refused_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    other = gigatoken._built(reference("cl100k_base"))
    monkeypatch.setattr(gigatoken, "_built", lambda _reference: other)
    monkeypatch.setattr(gigatoken, "_log", structlog.get_logger())
    before = counted("refused")
    with structlog.testing.capture_logs() as logs:
        assert load_twin(reference("o200k_base")) is reference("o200k_base")
    assert [line["event"] for line in logs] == ["tokenizer.twin_refused"]
    assert counted("refused") == before + 1


@pytest.mark.parametrize("error", [ValueError("unknown pattern"), PanicException("no vocabulary")])
def test_a_twin_that_cannot_be_built_is_refused(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def broken(_reference: object) -> None:
        raise error

    monkeypatch.setattr(gigatoken, "_built", broken)
    before = counted("refused")
    assert load_twin(reference("gpt2")) is reference("gpt2")
    assert counted("refused") == before + 1


def test_a_time_limit_is_no_fault_of_the_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeLimit(Exception):
        """Derives from no narrower class, as billiard's."""

    def late(_reference: object) -> None:
        raise TimeLimit

    monkeypatch.setattr(gigatoken, "_built", late)
    with pytest.raises(TimeLimit):
        load_twin(reference("gpt2"))


def test_without_the_library_there_is_only_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gigatoken, "find_spec", lambda _name: None)
    assert load_twin(reference("o200k_base")) is reference("o200k_base")


@pytest.mark.parametrize(("room_bytes", "builds"), [(-(2**40), 3), (2**40, 2)])
def test_words_are_forgotten_when_the_process_has_grown_and_that_leaves_room(
    monkeypatch: pytest.MonkeyPatch, room_bytes: int, builds: int
) -> None:
    monkeypatch.setattr(gigatoken, "_MAX_GROWTH_BYTES", -(2**40))
    monkeypatch.setattr(gigatoken, "_LEAST_ROOM_BYTES", room_bytes)
    built: list[object] = []

    def build() -> gigatoken.TwinBackend:
        built.append(None)
        return gigatoken._built(reference("gpt2"))

    ours = GigatokenTwin(reference("gpt2"), build=build)
    for _ in range(5):
        ours.encode_batch(["a word"] * 3000)
    assert len(built) == builds
    assert ours.encode("a word").tolist() == reference("gpt2").encode("a word").tolist()


def test_a_time_limit_while_words_are_forgotten_costs_that_call_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class TimeLimit(Exception):
        """As above."""

    built: list[object] = []

    def build() -> gigatoken.TwinBackend:
        built.append(None)
        if len(built) == 2:
            raise TimeLimit
        return gigatoken._built(reference("gpt2"))

    monkeypatch.setattr(gigatoken, "_MAX_GROWTH_BYTES", -(2**40))
    ours = GigatokenTwin(reference("gpt2"), build=build)
    with pytest.raises(TimeLimit):
        ours.encode_batch(["a word"] * 4001)
    assert ours.encode("a word").tolist() == reference("gpt2").encode("a word").tolist()
    assert ours.is_trusted
    assert len(built) == 3


def test_threads_share_a_twin() -> None:
    texts = list(generated_texts(400, seed=4))
    expected = [ids.tolist() for ids in reference("o200k_base").encode_batch(texts)]
    together = threading.Barrier(8)

    def encode(_number: int) -> list[list[int]]:
        together.wait()
        return [twin("o200k_base").encode(text).tolist() for text in texts]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(encode, range(8)))
    assert twin("o200k_base").is_trusted


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_specs", "_tokenizers", "_files", "_recorded"):
        monkeypatch.setattr(registry, name, {})
    monkeypatch.setattr(registry, "_twins", threading.Event())


@pytest.mark.usefixtures("empty_registry")
def test_specs_have_twins_where_a_process_asks_for_them() -> None:
    slow = load_spec("cl100k_base/plain")
    use_twins(enabled=True)
    fast = load_spec("o200k_base/plain")
    assert isinstance(fast.tokenizer, GigatokenTwin)
    assert isinstance(fast.reference_tokenizer, TiktokenTokenizer)
    assert load_spec("cl100k_base/plain") is slow
    use_twins(enabled=False)
    registry._tokenizers.clear()
    registry._specs.clear()
    again = load_spec("o200k_base/plain")
    assert isinstance(again.tokenizer, TiktokenTokenizer)
    assert again.fingerprint == fast.fingerprint


@pytest.mark.usefixtures("empty_registry")
def test_a_spec_of_a_file_has_a_twin_too() -> None:
    use_twins(enabled=True)
    spec = hf_spec("qwen")
    recorded = RecordedSpec(
        spec_id=spec.spec_id,
        encoding=spec.encoding,
        frame=spec.frame,
        fingerprint=spec.fingerprint,
        golden=spec.golden,
        tokenizer_sha256=reference_file(spec.tokenizer),
    )
    built = load_recorded(recorded, read_tokenizer=lambda _sha256: tokenizer_json("qwen"))
    assert isinstance(built.tokenizer, GigatokenTwin)
    assert isinstance(built.reference_tokenizer, HfTokenizer)


def reference_file(tokenizer: Tokenizer) -> str:
    assert isinstance(tokenizer.reference, HfTokenizer)
    return tokenizer.reference.sha256


FORKED = """
import os
import sys

import psutil

import pipeline.factory
import workers.main
from pipeline.tokenizers import load_spec, use_twins

threads = psutil.Process().num_threads()  # OpenBLAS has its own, and is ready for a fork
workers.main._main.prepare()
assert "qdrant_client" in sys.modules
assert "gigatoken" not in sys.modules
assert psutil.Process().num_threads() == threads
if (child := os.fork()) == 0:
    use_twins(enabled=True)
    spec = load_spec("o200k_base/plain")
    same = spec.tokenizer is not spec.reference_tokenizer and (
        spec.tokenizer.encode("after fork").tolist() == spec.reference_tokenizer.encode("after fork").tolist()
    )
    os._exit(0 if same else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="workers fork where they can")
def test_nothing_of_the_library_is_loaded_before_a_worker_forks_nor_a_thread_more() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)
