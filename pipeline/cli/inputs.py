"""What `forefill ingest` reads: files, folders and standard input one after the other, with broken lines reported."""

import contextlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Self

import typer

from pipeline.cli.output import Output
from pipeline.cli.progress import Report
from pipeline.documents.readers import (
    STANDARD_INPUT,
    BrokenLine,
    DocumentReader,
    FolderReader,
    JsonLinesReader,
    SourceDocument,
    open_reader,
)
from pipeline.documents.validation import DocumentLimits

_COPY_BYTES = 1024 * 1024


@dataclass(slots=True)
class Tally:
    """What was read."""

    documents: int = 0
    """Documents handed over, repeated ids included."""
    broken: int = 0
    ignored_fields: Counter[str] = field(default_factory=Counter)
    """Fields of JSON lines that are none of a document's, and how often they came."""
    left_out: Counter[str] = field(default_factory=Counter)
    """What folders hold besides: endings of files, or what else kept them out, and how often they came."""


@dataclass(slots=True)
class Inputs:
    """Where documents come from; standard input can be read once, unless it is spooled."""

    paths: Sequence[str]
    limits: DocumentLimits
    spool: BinaryIO | None = None
    """Everything standard input gave."""

    @classmethod
    def checked(cls, paths: Sequence[str], *, limits: DocumentLimits) -> Self:
        """Refuse what cannot be read before anything is written.

        Raises:
            BadParameter: Standard input is named twice.
            InvalidInput: A path does not exist, or is a folder without anything to read.
        """
        if list(paths).count(STANDARD_INPUT) > 1:
            raise typer.BadParameter("standard input can be read once only")
        for path in paths:
            with open_reader(path, limits=limits) as reader:
                if isinstance(reader, FolderReader):
                    reader.require_documents()
        return cls(paths, limits)

    @contextlib.contextmanager
    def spooled(self) -> Iterator[None]:
        """Keep standard input in a temporary file for the life of a `with` block, so that it can be read twice."""
        if STANDARD_INPUT not in self.paths:
            yield
            return
        with tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(sys.stdin.buffer, spool, _COPY_BYTES)
            self.spool = spool
            yield

    def readers(self) -> Iterator[DocumentReader]:
        """Yield an open reader for each path, one at a time."""
        for path in self.paths:
            with self._open(path) as reader:
                yield reader

    def total_bytes(self) -> int | None:
        """Return the bytes there are to read, None when that is not known."""
        total = 0
        for reader in self.readers():
            if reader.total_bytes is None:
                return None
            total += reader.total_bytes
        return total

    def _open(self, path: str) -> DocumentReader:
        if path == STANDARD_INPUT and self.spool is not None:
            size_bytes = self.spool.seek(0, 2)
            self.spool.seek(0)
            return JsonLinesReader(self.spool, source=STANDARD_INPUT, limits=self.limits, total_bytes=size_bytes)
        return open_reader(path, limits=self.limits)


class Reading:
    """One pass over all inputs: documents come out, broken lines are reported and counted."""

    def __init__(self, inputs: Inputs, output: Output, progress: Report) -> None:
        self.tally = Tally()
        self._inputs = inputs
        self._output = output
        self._progress = progress
        self._total_bytes = inputs.total_bytes()

    def documents(self) -> Iterator[SourceDocument]:
        """Yield the documents of all inputs in order."""
        finished_bytes = 0
        for reader in self._inputs.readers():
            for item in reader:
                if isinstance(item, BrokenLine):
                    self.tally.broken += 1
                    self._output.note(str(item))
                    continue
                self.tally.documents += 1
                self._show(finished_bytes + reader.bytes_read)
                yield item
            finished_bytes += reader.bytes_read
            self.tally.ignored_fields.update(reader.ignored_fields)
            self.tally.left_out.update(reader.left_out)

    def _show(self, read_bytes: int) -> None:
        share = read_bytes / self._total_bytes if self._total_bytes else None
        self._progress(share, f"{self.tally.documents:,} documents read")
