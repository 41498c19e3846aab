"""The text of the benchmarks: distinct, the same for the same sources, and honest about where it came from."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import corpus as module
from benchmarks.corpus import Document, from_sample, open_corpus, salted
from benchmarks.debian import NoPackagesError
from benchmarks.distinct import DistinctText
from benchmarks.page_text import html_text, kind_of, read_text

PARAGRAPHS = st.lists(st.sampled_from(["a b", "a  b", "c", "d\ne", "", "  "]), max_size=8)


def test_a_paragraph_is_kept_once_over_all_documents() -> None:
    distinct = DistinctText()
    assert distinct.keep_new("licence\n\nfirst") == "licence\n\nfirst"
    assert distinct.keep_new("licence\n \nsecond\n\nfirst") == "second"
    assert distinct.keep_new("  licence ") == ""


def test_layout_makes_no_paragraph_new() -> None:
    distinct = DistinctText()
    distinct.keep_new("one two\nthree")
    assert distinct.keep_new("one  two three") == ""


@given(st.lists(PARAGRAPHS, max_size=5))
def test_no_paragraph_comes_twice_and_none_is_lost(documents: list[list[str]]) -> None:
    distinct = DistinctText()
    kept = [distinct.keep_new("\n\n".join(paragraphs)) for paragraphs in documents]
    words = [" ".join(paragraph.split()) for text in kept for paragraph in text.split("\n\n") if paragraph]
    assert len(words) == len(set(words))
    assert set(words) == {" ".join(p.split()) for paragraphs in documents for p in paragraphs} - {""}


def test_a_page_gives_what_a_reader_sees() -> None:
    page = b"<html><script>x()</script><body><h1>T&amp;U</h1><p>one <b>two</b></p><pre>a\n  b</pre><nav>menu</nav>"
    text = html_text(page)
    assert [part.strip("\n") for part in text.split("\n\n") if part.strip()] == ["T&U", "one two", "a\n  b"]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.html", "html"), ("a.HTML.gz", "html"), ("a.rst.gz", "plain"), ("a.md", "plain"), ("a.png", None), ("a", None)],
)
def test_only_files_of_text_are_read(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


def test_a_packed_file_is_unpacked_and_a_broken_one_is_empty(tmp_path: Path) -> None:
    (good := tmp_path / "a.txt.gz").write_bytes(gzip.compress("text é".encode()))
    (bad := tmp_path / "b.txt.gz").write_bytes(b"no gzip")
    (latin := tmp_path / "c.txt").write_bytes(b"caf\xe9")
    assert [read_text(path) for path in (good, bad, latin)] == ["text é", "", ""]


def test_a_salted_copy_shares_no_paragraph() -> None:
    document = Document("a", "one\n\ntwo\n\nthree")
    copies = [salted(document, number) for number in range(3)]
    paragraphs = [paragraph for copy in copies for paragraph in copy.text.split("\n\n")]
    assert len(set(paragraphs)) == 9
    assert len({copy.id for copy in copies}) == 3


def test_the_sample_stands_in_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise NoPackagesError("no apt here")

    monkeypatch.setattr(module, "require_tools", refuse)
    corpus = open_corpus(quick=True, folder=tmp_path)
    assert "NOT distinct" in corpus.remark
    assert "no apt here" in corpus.remark
    assert corpus.text_bytes >= module.QUICK_BYTES
    with pytest.raises(NoPackagesError):
        open_corpus(quick=False, folder=tmp_path)


def test_the_same_sources_give_the_same_text(tmp_path: Path) -> None:
    first, second = (from_sample(tmp_path / name, text_bytes=300_000, reason="test") for name in "ab")
    assert first.sha256 == second.sha256
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["text_bytes"] == sum(len(document.text.encode()) for document in first.documents())


def test_a_part_of_a_corpus_is_about_as_large_as_asked(tmp_path: Path) -> None:
    corpus = from_sample(tmp_path, text_bytes=1_000_000, reason="test")
    chosen = corpus.spread(100_000)
    assert 100_000 <= sum(len(document.text.encode()) for document in chosen) < 150_000
    assert len(corpus.spread(10**9)) == corpus.parts[0].documents
