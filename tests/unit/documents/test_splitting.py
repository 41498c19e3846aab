"""Cuts that never lose text, never exceed 8 KiB, never move, and never take long."""

import time
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from semantic_text_splitter import TextSplitter

from pipeline.documents.passages import MAX_PASSAGE_BYTES
from pipeline.documents.splitting import MAX_SIZE_CHARS, MIN_SIZE_CHARS, Splitter
from pipeline.errors import InvalidInput
from tests.support.sample import documents

MIB = 1024 * 1024

hostile = st.text(st.sampled_from("ab .\n\r\t\u00a0\u2028\u3000é漢\U0001f469\u200d\u0301\x1c\ufeff"), max_size=600)
repeated = st.builds(lambda text, times: text * times, st.text(max_size=12), st.integers(1, 200))


@given(st.one_of(hostile, repeated, st.text()), st.integers(MIN_SIZE_CHARS, 400))
@example("\n" * 400, MIN_SIZE_CHARS)
@example("e" + "\u0301" * 900, MIN_SIZE_CHARS)
@example("\U0001f469\u200d" * 300, MIN_SIZE_CHARS)
def test_passages_are_ordered_spans_that_leave_out_only_white_space(text: str, size_chars: int) -> None:
    position = 0
    for passage in Splitter(size_chars).split(text):
        assert passage.text == text[passage.start : passage.end]
        assert 0 < len(passage.text) <= size_chars
        assert not text[position : passage.start].strip()
        position = passage.end
    assert not text[position:].strip()


def test_no_passage_is_over_8_kib_even_of_the_widest_characters() -> None:
    passages = Splitter(MAX_SIZE_CHARS).split("\U0001f469" * 5_000)
    assert max(len(passage.text.encode()) for passage in passages) == MAX_PASSAGE_BYTES


def test_cuts_follow_paragraphs_and_sentences() -> None:
    paragraph = "One sentence. " * 6
    passages = Splitter(100).split(f"{paragraph}\n\n{paragraph}")
    assert [passage.text for passage in passages] == [paragraph.strip()] * 2
    assert all(passage.text.endswith(".") for passage in Splitter(100).split("One sentence. " * 60))


def test_windows_leave_the_cuts_where_the_library_alone_makes_them() -> None:
    text = "\n\n".join(document["text"] for document in documents())
    for whole in (text, " ".join(text.split())[:200_000]):
        alone = (chunk.strip() for chunk in TextSplitter(2_000, trim=False).chunks(whole))
        assert [passage.text for passage in Splitter(2_000).split(whole)] == [chunk for chunk in alone if chunk]


def test_cuts_have_not_moved() -> None:
    """Cuts of the sample corpus under this identity; if they move, the identity must change as well."""
    splitter = Splitter()
    cuts = [(passage.start, passage.end) for document in documents() for passage in splitter.split(document["text"])]
    assert splitter.identity == "semantic-text-splitter/0.33.1/chars-2000/v1"
    assert len(cuts) == 896
    assert sha256(repr(cuts).encode()).hexdigest()[:16] == "8a23daf6d7a13022"


def test_an_identity_names_its_splitter() -> None:
    assert Splitter.from_identity(Splitter(1500).identity) == Splitter(1500)
    older = Splitter.from_identity("semantic-text-splitter/0.1.0/chars-1500/v0")
    assert (older, older.identity) == (Splitter(1500), Splitter(1500).identity)


@pytest.mark.parametrize("identity", ["", "sentences", "semantic-text-splitter/0.33.1/chars-1/v1"])
def test_an_unknown_identity_is_refused(identity: str) -> None:
    with pytest.raises(InvalidInput, match="splitter"):
        Splitter.from_identity(identity)


@pytest.mark.parametrize("size_chars", [0, MIN_SIZE_CHARS - 1, MAX_SIZE_CHARS + 1])
def test_a_size_that_could_exceed_8_kib_is_refused(size_chars: int) -> None:
    with pytest.raises(InvalidInput, match="size"):
        Splitter(size_chars)


def test_a_lone_surrogate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="surrogate at character 2"):
        Splitter().split("ab\ud800")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a" * 8 * MIB, id="one word"),
        pytest.param("漢" * MIB, id="Chinese without punctuation"),
        pytest.param("e" + "\u0301" * 100_000, id="combining marks"),
        pytest.param("a\r" * 4 * MIB, id="lines of one character"),
        pytest.param(" " * 8 * MIB, id="spaces"),
        pytest.param("".join("a" + "\n" * run for run in range(4_000)), id="thousands of kinds of paragraphs"),
    ],
)
def test_time_is_bounded_for_texts_that_are_quadratic_in_the_library(text: str) -> None:
    started = time.process_time()
    Splitter().split(text)
    assert time.process_time() - started < 10  # measured: 0.1 to 2 s; the library alone: up to 70 s
