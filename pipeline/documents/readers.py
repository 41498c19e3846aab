"""Documents from files, folders and standard input, one at a time and in constant memory.

A reader does not stop at bad input: what cannot be a document comes out as a `BrokenLine` in its place, and reading
goes on. Which rules a document must meet is said in `validation`. A reader can be gone through once.
"""

import contextlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from pipeline.documents.validation import MAX_ID_BYTES, DocumentLimits, check_document, check_document_id, shown
from pipeline.errors import InvalidInput
from pipeline.json_input import read_json

STANDARD_INPUT = "-"
"""Named instead of a path."""

JSON_LINES_SUFFIXES = frozenset({".jsonl", ".ndjson"})
HTML_SUFFIXES = frozenset({".html", ".htm"})
DOCUMENT_SUFFIXES = HTML_SUFFIXES | {".md", ".txt", ".rst"}

HIDDEN = "hidden"
LINKED_FOLDER = "linked folders"
NO_ENDING = "without ending"
OTHER_ENDINGS = "other endings"
"""What else than an ending is counted of what a folder holds besides; endings begin with a dot."""

_MAX_ENDING = 32
_FIELDS = frozenset({"id", "text", "metadata"})
_MAX_NAMES = 32
_SKIP_BYTES = 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """One document as its owner gives it."""

    id: str
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def checked(cls, record: object, *, limits: DocumentLimits) -> Self:
        """Return the document that a JSON object describes; other fields are ignored.

        Raises:
            InvalidInput: It is none; the message begins with a verb where the document has no id to be named by.
            TooLarge: It is over a limit.
        """
        if not isinstance(record, dict):
            raise InvalidInput("is not a JSON object")
        if "id" not in record:
            raise InvalidInput("has no field id")
        document_id = record["id"]
        check_document_id(document_id)
        if "text" not in record:
            raise InvalidInput(f"document {shown(document_id)} has no field text", item=document_id)
        text, metadata = record["text"], record.get("metadata")
        check_document(document_id, text=text, metadata=metadata, limits=limits)
        return cls(document_id, text, {} if metadata is None else metadata)


@dataclass(frozen=True, slots=True)
class BrokenLine:
    """A line, file or folder that could not be read as what it should be."""

    source: str
    """Where it is: the path, or `-`."""

    line_number: int | None
    """Which line, from 1; None where a whole file is meant."""

    reason: str
    """What is wrong with it, without its text."""

    def __str__(self) -> str:
        where = self.source if self.line_number is None else f"{self.source}:{self.line_number}"
        return f"{where}: {self.reason}"


SourceItem = SourceDocument | BrokenLine


class DocumentReader(Protocol):
    """Gives documents; closed by `with`."""

    ignored_fields: Counter[str]
    """Top-level JSON fields met so far that are none of a document's, and how often; at most 32 names are kept."""

    left_out: Counter[str]
    """What was met and not read, by ending or by what else kept it out; about 32 names are kept."""

    bytes_read: int
    """How far it has come."""

    total_bytes: int | None
    """How far there is to go; None if that is not known."""

    def __iter__(self) -> Iterator[SourceItem]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_reader(path: str | Path, *, limits: DocumentLimits) -> DocumentReader:
    """Return the reader for a path: JSON lines, a folder, a single document, or standard input for `-`.

    Raises:
        InvalidInput: There is no such file, it cannot be opened, or its name ends in nothing known.
    """
    if str(path) == STANDARD_INPUT:
        return JsonLinesReader(sys.stdin.buffer, source=STANDARD_INPUT, limits=limits)
    path = Path(path)
    try:
        if path.is_dir():
            return FolderReader(path, limits=limits)
        size_bytes = path.stat().st_size
        if path.suffix.lower() in JSON_LINES_SUFFIXES:
            return JsonLinesReader(path.open("rb"), source=_printable(path), limits=limits, total_bytes=size_bytes)
    except OSError as error:
        raise InvalidInput(f"{_printable(path)} cannot be opened: {error.strerror}", item=_printable(path)) from error
    if path.suffix.lower() in DOCUMENT_SUFFIXES:
        return FolderReader(path.parent, only=path.name, limits=limits)
    known = " ".join(sorted(JSON_LINES_SUFFIXES | DOCUMENT_SUFFIXES))
    raise InvalidInput(f"{_printable(path)} is neither a folder nor one of {known}", item=_printable(path))


class _Progress:
    """What every reader has: how far it has come."""

    def __init__(self, *, total_bytes: int | None = None) -> None:
        self.ignored_fields: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.bytes_read = 0
        self.total_bytes = total_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give up what is open."""


class JsonLinesReader(_Progress):
    """Reads one JSON object a line: `id`, `text` and maybe `metadata`; blank lines are skipped."""

    def __init__(
        self, stream: BinaryIO, *, source: str, limits: DocumentLimits, total_bytes: int | None = None
    ) -> None:
        super().__init__(total_bytes=total_bytes)
        self._stream = stream
        self._source = source
        self._limits = limits
        # JSON spends up to six bytes on a character that has one in UTF-8; other fields get what is left.
        self._max_line_bytes = 6 * (limits.max_text_bytes + limits.max_metadata_bytes + MAX_ID_BYTES) + 1024

    def close(self) -> None:
        """Close the file; standard input is left to the process."""
        if self._source != STANDARD_INPUT:
            self._stream.close()

    def __iter__(self) -> Iterator[SourceItem]:
        """Yield documents and broken lines in order; a line that cannot be read ends it."""
        line_number = 0
        try:
            while line := self._stream.readline(self._max_line_bytes + 1):
                line_number += 1
                self.bytes_read += len(line)
                if len(line) > self._max_line_bytes and not line.endswith(b"\n"):
                    self._skip_line()
                    yield self._broken(line_number, f"line is over {self._max_line_bytes:,} bytes")
                    continue
                if line_number == 1:
                    line = line.removeprefix(_BYTE_ORDER_MARK)
                if not line.isspace():
                    yield self._item(line, line_number)
        except OSError as error:
            yield self._broken(line_number + 1, f"cannot be read: {error.strerror}")

    def _skip_line(self) -> None:
        while rest := self._stream.readline(_SKIP_BYTES):
            self.bytes_read += len(rest)
            if rest.endswith(b"\n"):
                return

    def _item(self, line: bytes, line_number: int) -> SourceItem:
        try:
            return self._document(line)
        except InvalidInput as error:
            return self._broken(line_number, str(error))

    def _document(self, line: bytes) -> SourceDocument:
        record = read_json(line)
        document = SourceDocument.checked(record, limits=self._limits)
        for name in sorted(record.keys() - _FIELDS):
            if name in self.ignored_fields or len(self.ignored_fields) < _MAX_NAMES:
                self.ignored_fields[name] += 1
        return document

    def _broken(self, line_number: int, reason: str) -> BrokenLine:
        return BrokenLine(self._source, line_number, reason)


class FolderReader(_Progress):
    """Reads the documents under a folder in the order of their ids: POSIX paths relative to it, UTF-8 on every host.

    Left out and counted: names that start with a dot, files with other endings, folders that are symbolic links.
    Symbolic links to files are read unless they lead out of the folder.
    """

    def __init__(self, root: Path, *, limits: DocumentLimits, only: str | None = None) -> None:
        """Remember what to read.

        Args:
            root: The folder.
            limits: How large a document may be; HTML is measured with its markup.
            only: Read this one file in it instead, whatever it is.
        """
        super().__init__()
        self._root = root
        self._limits = limits
        self._only = None if only is None else _from_host(only)

    def __iter__(self) -> Iterator[SourceItem]:
        """Yield documents and unreadable files."""
        if self._only is not None:
            yield self._item(self._only)
            return
        for path in self._visited():
            yield path if isinstance(path, BrokenLine) else self._item(path)

    def require_documents(self) -> None:
        """Refuse a folder without anything to read; what cannot be read counts, since it will be reported.

        Raises:
            InvalidInput: It says what there is instead, and what is read.
        """
        if self._only is None and next(self._visited(), None) is None:
            known = " ".join(sorted(DOCUMENT_SUFFIXES))
            found = f"left out: {say_left_out(self.left_out)}" if self.left_out else "it is empty"
            source = _printable(self._root)
            raise InvalidInput(f"{source} holds nothing that is read ({known}); {found}", item=source)

    def _visited(self) -> Iterator[str | BrokenLine]:
        """Yield the path of each file to read, and each folder that cannot be listed."""
        pending = [""]
        while pending:
            relative = pending.pop()
            if relative and not relative.endswith("/"):
                yield relative
                continue
            try:
                pending.extend(reversed(self._listed(relative)))
            except OSError as error:
                yield self._broken(relative, f"cannot be read: {error.strerror}")

    def _listed(self, folder: str) -> list[str]:
        """Return the paths in a folder that are to be visited, sorted; folders end in `/`."""
        paths = []
        with os.scandir(self._path(folder)) as entries:
            for entry in entries:
                name = _from_host(entry.name)
                reason = _why_left_out(entry, name)
                if reason is not None:
                    self._leave_out(reason)
                else:
                    paths.append(f"{folder}{name}/" if entry.is_dir(follow_symlinks=False) else folder + name)
        return sorted(paths)

    def _leave_out(self, reason: str) -> None:
        known = reason in self.left_out or len(self.left_out) < _MAX_NAMES
        self.left_out[reason if known else OTHER_ENDINGS] += 1

    def _path(self, relative: str) -> Path:
        return self._root / os.fsdecode(relative.encode(errors="surrogateescape"))

    def _item(self, relative: str) -> SourceItem:
        try:
            text = self._text(relative)
            check_document(relative, text=text, metadata=None, limits=self._limits)
        except UnicodeDecodeError as error:
            return self._broken(relative, f"is not UTF-8 at byte {error.start}")
        except OSError as error:
            return self._broken(relative, f"cannot be read: {error.strerror}")
        except InvalidInput as error:
            return self._broken(relative, str(error))
        return SourceDocument(relative, text)

    def _text(self, relative: str) -> str:
        path = self._path(relative)
        if not stat.S_ISREG(path.stat().st_mode):
            raise InvalidInput("is not a regular file")
        if self._only is None and path.is_symlink() and not path.resolve().is_relative_to(self._root.resolve()):
            raise InvalidInput("is a symbolic link that leaves the folder")
        with path.open("rb") as file:
            content = file.read(self._limits.max_text_bytes + 1)
        self.bytes_read += len(content)
        if len(content) > self._limits.max_text_bytes:
            raise InvalidInput(f"is over {self._limits.max_text_bytes:,} bytes")
        if _suffix(relative) not in HTML_SUFFIXES:
            return content.removeprefix(_BYTE_ORDER_MARK).decode()
        from pipeline.documents.html_charset import decode_page  # noqa: PLC0415  # the parser costs a process 20 ms
        from pipeline.documents.html_text import html_text  # noqa: PLC0415  # as above

        return html_text(decode_page(content))

    def _broken(self, relative: str, reason: str) -> BrokenLine:
        return BrokenLine(_printable(self._path(relative)), None, reason)


def say_left_out(left_out: Mapping[str, int]) -> str:
    """Return what a folder holds besides in one line, the most frequent first."""
    order = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in order)


def _why_left_out(entry: "os.DirEntry[str]", name: str) -> str | None:
    """Return the ending of a file that is not read, or what else keeps an entry out; None for what is visited."""
    if name.startswith("."):
        return HIDDEN
    if entry.is_dir(follow_symlinks=False):
        return None
    suffix = _suffix(name)
    if suffix in DOCUMENT_SUFFIXES:
        return None
    with contextlib.suppress(OSError):  # a link to itself leads nowhere
        if entry.is_symlink() and entry.is_dir():
            return LINKED_FOLDER
    shown = suffix.encode(errors="backslashreplace").decode()
    return shown if 0 < len(shown) <= _MAX_ENDING else NO_ENDING


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _from_host(name: str) -> str:
    """Return a name of the file system as text in UTF-8, whatever encoding the host's locale gives to names."""
    return os.fsencode(name).decode(errors="surrogateescape")


def _printable(path: Path) -> str:
    """Return a path as text even if its name is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")
