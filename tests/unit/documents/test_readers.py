"""Readers go on after bad input, say where it was, and hold one document at a time."""

import io
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.documents.readers import (
    BrokenLine,
    FolderReader,
    JsonLinesReader,
    SourceDocument,
    SourceItem,
    open_reader,
    say_left_out,
)
from pipeline.documents.validation import DocumentLimits
from pipeline.errors import InvalidInput
from tests.support.sample import DOCUMENTS

LIMITS = DocumentLimits(max_text_bytes=1000, max_metadata_bytes=200)
GOOD = b'{"id": "good", "text": "text"}'


def reader_of(content: bytes, *, limits: DocumentLimits = LIMITS) -> JsonLinesReader:
    return JsonLinesReader(io.BytesIO(content), source="in.jsonl", limits=limits)


def read_path(path: Path, *, limits: DocumentLimits = LIMITS) -> list[SourceItem]:
    with open_reader(path, limits=limits) as reader:
        return list(reader)


def ids(items: list[SourceItem]) -> list[str]:
    return [item.id for item in items if isinstance(item, SourceDocument)]


def broken(items: list[SourceItem]) -> list[BrokenLine]:
    return [item for item in items if isinstance(item, BrokenLine)]


def test_json_lines_become_documents() -> None:
    content = (
        b'\xef\xbb\xbf{"id": "a", "text": "A"}\r\n\n  \n{"text": "B\\n\xc3\xa9", "id": "b", "metadata": {"k": [1]}}'
    )
    assert list(reader_of(content)) == [SourceDocument("a", "A", {}), SourceDocument("b", "B\né", {"k": [1]})]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b"nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 10_000, "not JSON"),
        (b'{"id": "a", "text": NaN}', "not JSON"),
        (b'{"id": "a", "text": "\\ud800"}', "lone surrogate"),
        (b'["id", "text"]', "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'{"text": "no id"}', "no field id"),
        (b'{"id": "no text"}', "no field text"),
        (b'{"id": "", "text": "t"}', "not empty"),
        (b'{"id": 1, "text": "t"}', "must be a string"),
        (b'{"id": "a\\u0000", "text": "t"}', "NUL"),
        (b'{"id": "' + b"a" * 513 + b'", "text": "t"}', "512 bytes"),
        (b'{"id": "a", "text": null}', "must be a string"),
        (b'{"id": "a", "text": "t\\u0000"}', "NUL"),
        (b'{"id": "a", "text": "' + b"t" * 1001 + b'"}', "1,000 bytes"),
        (b'{"id": "a", "text": "t", "metadata": []}', "must be an object"),
        (b'{"id": "a", "text": "t", "metadata": false}', "must be an object"),
        (b'{"id": "a", "text": "t", "metadata": {"k": "' + b"v" * 200 + b'"}}', "200 bytes"),
        (b'{"id": "a", "text": "t", "metadata": ' + b'{"k":' * 90 + b"1" + b"}" * 91, "nested"),
        (b'{"id": "a", "text": "t", "metadata": ' + b'{"k":' * 900 + b"1" + b"}" * 901, "nested"),
    ],
)
def test_a_broken_line_is_reported_with_its_number_and_the_rest_is_read(line: bytes, reason: str) -> None:
    items = list(reader_of(b"\n".join([GOOD, b"", line, GOOD])))
    assert ids(items) == ["good", "good"]
    [report] = broken(items)
    assert (report.source, report.line_number) == ("in.jsonl", 3)
    assert reason in report.reason
    assert str(report).startswith("in.jsonl:3: ")


def test_a_line_without_end_is_skipped_without_being_held() -> None:
    endless = b'{"id": "a", "text": "' + b"x" * 40_000_000
    content = io.BytesIO(b"\n".join([GOOD, endless, GOOD]))
    tracemalloc.start()
    items = list(JsonLinesReader(content, source="-", limits=LIMITS))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert ids(items) == ["good", "good"]
    assert [(report.line_number, "line is over" in report.reason) for report in broken(items)] == [(2, True)]
    assert peak_bytes < 4_000_000


def test_a_document_at_its_limit_fits_however_it_is_escaped() -> None:
    content = b'{"id": "a", "text": "' + b"\\u0041" * 1000 + b'"}\n' + GOOD
    assert ids(list(reader_of(content))) == ["a", "good"]


def test_other_fields_are_ignored_and_counted() -> None:
    reader = reader_of(b'{"id": "a", "text": "", "title": "T", "url": ""}\n{"id": "b", "text": "", "title": "T"}')
    assert ids(list(reader)) == ["a", "b"]
    assert dict(reader.ignored_fields) == {"title": 2, "url": 1}


def test_names_of_ignored_fields_do_not_pile_up() -> None:
    lines = (b'{"id": "a", "text": "", "field%d": 1}' % number for number in range(1000))
    reader = reader_of(b"\n".join(lines))
    assert len(list(reader)) == 1000
    assert len(reader.ignored_fields) == 32


@given(st.binary(max_size=200) | st.text().map(lambda text: f'{{"id": "a", "text": "{text}"}}'.encode(errors="ignore")))
def test_no_bytes_stop_a_reader(content: bytes) -> None:
    items = list(reader_of(content + b"\n" + GOOD))
    assert items[-1] == SourceDocument("good", "text", {})


def test_the_sample_corpus_is_read_whole() -> None:
    with open_reader(DOCUMENTS, limits=DocumentLimits(max_text_bytes=100_000, max_metadata_bytes=100)) as reader:
        items = list(reader)
    assert (len(ids(items)), broken(items), dict(reader.ignored_fields)) == (659, [], {})
    assert reader.bytes_read == reader.total_bytes == DOCUMENTS.stat().st_size


def test_a_folder_gives_its_documents_in_the_order_of_their_relative_paths(tmp_path: Path) -> None:
    for name in ("b.md", "a/z.rst", "a/b/c.txt", "a.txt", "a-b/x.HTML", "c.py", ".git/d.md", ".hidden.md", "é ü/#?.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf<b>te</b>xt\r\n")
    items = read_path(tmp_path)
    assert ids(items) == ["a-b/x.HTML", "a.txt", "a/b/c.txt", "a/z.rst", "b.md", "é ü/#?.md"]
    assert items[0] == SourceDocument("a-b/x.HTML", "text", {})
    assert items[1] == SourceDocument("a.txt", "<b>te</b>xt\r\n", {})


def test_unreadable_files_are_reported_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_bytes(b"caf\xe9")
    (tmp_path / "b.md").write_bytes(b"x" * 1001)
    (tmp_path / "c.md").write_bytes(b"nul \0")
    (tmp_path / "d.html").write_bytes(b"<meta charset=iso-2022-kr>")
    os.mkfifo(tmp_path / "e.md")
    (tmp_path / "f.md").symlink_to("f.md")
    (tmp_path / "g.md").symlink_to("nowhere.md")
    (tmp_path / os.fsdecode(b"h\xff.md")).write_bytes(b"undecodable name")
    (tmp_path / "i.md").write_bytes(b"good")
    items = read_path(tmp_path)
    assert ids(items) == ["i.md"]
    reasons = [report.reason for report in broken(items)]
    for reason, part in zip(
        reasons,
        ["byte 3", "1,000 bytes", "NUL", "cannot be read", "regular", "links", "No such", "surrogate"],
        strict=True,
    ):
        assert part in reason
    assert all(report.source.startswith(str(tmp_path)) and report.line_number is None for report in broken(items))
    assert all(str(report).encode() for report in broken(items))


def test_links_are_followed_to_files_in_the_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (tmp_path / "outside.md").write_text("secret")
    (root / "sub" / "real.md").write_text("real")
    (root / "inside.md").symlink_to("sub/real.md")
    (root / "leaves.md").symlink_to(tmp_path / "outside.md")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "away").symlink_to(tmp_path, target_is_directory=True)
    items = read_path(root)
    assert ids(items) == ["inside.md", "sub/real.md"]
    assert [report.reason for report in broken(items)] == ["is a symbolic link that leaves the folder"]


def test_what_a_folder_holds_besides_is_counted(tmp_path: Path) -> None:
    for name in ("a.md", "b.PDF", "sub/c.pdf", "sub/d.py", ".hidden.md", "README", "sub/.git/e.md", f"f.{'x' * 40}"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / os.fsdecode(b"g.\xff")).write_text("text")
    with open_reader(tmp_path, limits=LIMITS) as reader:
        assert ids(list(reader)) == ["a.md"]
    expected = {".pdf": 2, ".py": 1, ".\\udcff": 1, "hidden": 2, "linked folders": 1, "without ending": 3}
    assert dict(reader.left_out) == expected
    assert say_left_out(reader.left_out).startswith("3 without ending, 2 .pdf, 2 hidden, 1 .")


def test_endings_of_what_is_left_out_do_not_pile_up(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"a.{number}").touch()
    with open_reader(tmp_path, limits=LIMITS) as reader:
        assert list(reader) == []
    assert (len(reader.left_out), reader.left_out["other endings"]) == (33, 68)


@pytest.mark.parametrize(
    ("names", "found"), [((), "it is empty"), (("a.pdf", "b/c.pdf", "d"), "left out: 2 .pdf, 1 without ending")]
)
def test_a_folder_without_anything_to_read_is_refused(tmp_path: Path, names: tuple[str, ...], found: str) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    reader = FolderReader(tmp_path, limits=LIMITS)
    with pytest.raises(InvalidInput, match="holds nothing that is read") as caught:
        reader.require_documents()
    assert found in str(caught.value)
    assert ".htm .html .md .rst .txt" in str(caught.value)


def test_a_document_has_the_same_id_whatever_the_locale_of_the_host(tmp_path: Path) -> None:
    (tmp_path / "tür").mkdir()
    (tmp_path / "tür" / "é.md").write_text("é", encoding="utf-8")
    script = (
        "import sys; from pathlib import Path; from pipeline.documents.readers import *; "
        "reader = FolderReader(Path(sys.argv[1]), limits=DocumentLimits(max_text_bytes=9, max_metadata_bytes=9)); "
        "print(ascii(list(reader)))"
    )
    environment = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=os.environ | environment, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == ascii([SourceDocument("tür/é.md", "é")])


def test_a_single_document_is_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("notes")
    (tmp_path / "other.md").write_text("other")
    assert read_path(tmp_path / "notes.md") == [SourceDocument("notes.md", "notes", {})]


def test_what_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b")
    for name, reason in (("missing.jsonl", "No such file"), ("data.csv", "neither a folder")):
        with pytest.raises(InvalidInput, match=reason) as caught:
            open_reader(tmp_path / name, limits=LIMITS)
        assert name in str(caught.value)


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(GOOD))
    monkeypatch.setattr("sys.stdin", stream)
    with open_reader("-", limits=LIMITS) as reader:
        assert ids(list(reader)) == ["good"]
    assert not stream.closed
