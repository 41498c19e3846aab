"""The benchmark's text: distinct, real, from Debian documentation packages, the same for the same packages.

Built once into the user's cache folder, one JSONL part a package and a manifest that says what it was made of. Where no
packages can be had, the repository's sample stands in, repeated with a word of its own in every paragraph.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.debian import PACKAGES, QUICK_PACKAGES, NoPackagesError, Package, fetch, require_tools, unpack
from benchmarks.distinct import DistinctText
from benchmarks.page_text import kind_of, read_text

MB = 1_000_000
FORMAT = 1
"""Grows when the same packages would give another text."""

LEAST_BYTES = 200 * MB
"""What a full run asks for."""
QUICK_BYTES = 10 * MB

_LEAST_DOCUMENT_CHARS = 200
_MOST_DOCUMENT_CHARS = 1_000_000
_PACKAGE_SHARE_BYTES = 25 * MB
"""Most text of one package: none may be the whole corpus."""
_SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "python_docs" / "docs.jsonl"


@dataclass(frozen=True, slots=True)
class Document:
    """One document of the corpus."""

    id: str
    """Package and file, parted by a slash."""
    text: str


@dataclass(frozen=True, slots=True)
class Part:
    """One package's text."""

    package: str
    version: str
    deb_sha256: str
    documents: int
    text_bytes: int
    sha256: str
    """Of the part's file."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """A corpus on disk."""

    folder: Path
    parts: tuple[Part, ...]
    remark: str = ""
    """What its readers should know of it."""

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes of all texts."""
        return sum(part.text_bytes for part in self.parts)

    @property
    def sha256(self) -> str:
        """Names the text: equal for equal parts in equal order."""
        return hashlib.sha256("".join(part.sha256 for part in self.parts).encode()).hexdigest()

    def documents(self, *, packages: Sequence[str] | None = None) -> Iterator[Document]:
        """Yield the documents, of some packages only if these are named."""
        for part in self.parts:
            if packages is None or part.package in packages:
                with (self.folder / f"{part.package}.jsonl").open(encoding="utf-8") as lines:
                    yield from (Document(**json.loads(line)) for line in lines)

    def spread(self, text_bytes: int) -> list[Document]:
        """Return documents of about so many bytes, the same share of every package's."""
        share = min(1.0, text_bytes / max(1, self.text_bytes))
        chosen: list[Document] = []
        for part in self.parts:
            taken = 0
            for document in self.documents(packages=[part.package]):
                if taken >= share * part.text_bytes:
                    break
                taken += len(document.text.encode())
                chosen.append(document)
        return chosen

    def describe(self) -> dict[str, Any]:
        """Return the manifest, as it is written beside the parts and with every result."""
        return {
            "format": FORMAT,
            "text_bytes": self.text_bytes,
            "sha256": self.sha256,
            "remark": self.remark,
            "packages": [asdict(part) for part in self.parts],
        }


def cache_folder() -> Path:
    """Return the user's folder for what benchmarks build and fetch."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forefill-bench"


def open_corpus(*, quick: bool, folder: Path | None = None) -> Corpus:
    """Return the corpus, built first where it is not there yet: a minute or two, and 280 MB to download.

    Args:
        quick: About 10 MB of a few small packages.
        folder: Where it is kept; by default in the user's cache.

    Raises:
        NoPackagesError: A full corpus cannot be built here; a quick one then comes from the sample.
    """
    root = folder or cache_folder()
    home = root / ("quick" if quick else "full")
    if (corpus := _read(home)) is not None:
        return corpus
    wanted, limit = (QUICK_PACKAGES, QUICK_BYTES) if quick else (PACKAGES, None)
    try:
        return _build(home, debs=root / "debs", wanted=wanted, limit=limit)
    except NoPackagesError as error:
        if not quick:
            raise
        return from_sample(root / "sample", text_bytes=QUICK_BYTES, reason=str(error))


def from_sample(home: Path, *, text_bytes: int, reason: str) -> Corpus:
    """Build a corpus of the repository's sample, repeated with a word of its own in every paragraph."""
    sample = [json.loads(line) for line in _SAMPLE.read_text(encoding="utf-8").splitlines()]
    documents: list[Document] = []
    size, copy = 0, 0
    while size < text_bytes:
        for line in sample:
            document = salted(Document(f"sample/{line['id']}", line["text"]), copy)
            documents.append(document)
            size += len(document.text.encode())
        copy += 1
    part = _write_part(home, Package("sample", "of the repository", "", _SAMPLE), documents)
    remark = f"NOT distinct text but the sample {copy} times over with salts: {reason}"
    return _finish(Corpus(home, (part,), remark), home)


def salted(document: Document, copy: int) -> Document:
    """Return a document that shares no paragraph with its original, nor with other copies."""
    paragraphs = document.text.split("\n\n")
    return Document(f"{document.id}#{copy}", "\n\n".join(f"{copy}: {paragraph}" for paragraph in paragraphs))


def _read(home: Path) -> Corpus | None:
    try:
        manifest = json.loads((home / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if manifest.get("format") != FORMAT:
        return None
    return Corpus(home, tuple(Part(**part) for part in manifest["packages"]), manifest["remark"])


def _build(home: Path, *, debs: Path, wanted: Sequence[str], limit: int | None) -> Corpus:
    require_tools()
    distinct = DistinctText()
    parts: list[Part] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as progress, ProcessPoolExecutor() as readers:
        task = progress.add_task("corpus", total=len(wanted))
        for name in wanted:
            progress.update(task, description=f"corpus: {name}", advance=1)
            left = None if limit is None else limit - sum(part.text_bytes for part in parts)
            if left is not None and left <= 0:
                break
            package = fetch(name, debs)
            if package is not None:
                most = _PACKAGE_SHARE_BYTES if left is None else min(left, limit // 3 + 1 if limit else left)
                documents = _read_package(package, readers, distinct, most_bytes=most)
                parts.append(_write_part(home, package, documents))
    corpus = Corpus(home, tuple(parts))
    least = LEAST_BYTES if limit is None else limit // 2
    if corpus.text_bytes < least:
        raise NoPackagesError(
            f"only {corpus.text_bytes / MB:.0f} MB of text could be had from Debian packages, {least / MB:.0f} are "
            "needed: does `apt-get download rust-doc` work here, perhaps after `apt-get update`?"
        )
    return _finish(corpus, home)


def _read_package(
    package: Package, readers: ProcessPoolExecutor, distinct: DistinctText, *, most_bytes: int
) -> list[Document]:
    """Return a package's documents, without paragraphs that were seen before."""
    folder = Path(tempfile.mkdtemp(prefix="forefill-bench-"))
    documents: list[Document] = []
    size = 0
    try:
        paths = [path for path in unpack(package, folder) if kind_of(path) is not None]
        for path, text in zip(paths, readers.map(read_text, paths, chunksize=16), strict=True):
            kept = distinct.keep_new(text)[:_MOST_DOCUMENT_CHARS] if size < most_bytes else ""
            if len(kept) >= _LEAST_DOCUMENT_CHARS:
                documents.append(Document(f"{package.name}/{path.relative_to(folder)}", kept))
                size += len(kept.encode())
    finally:
        shutil.rmtree(folder)
    return documents


def _write_part(home: Path, package: Package, documents: Sequence[Document]) -> Part:
    home.mkdir(parents=True, exist_ok=True)
    dump = partial(json.dumps, ensure_ascii=False)
    content = "".join(f"{dump(asdict(document))}\n" for document in documents).encode()
    (home / f"{package.name}.jsonl").write_bytes(content)
    return Part(
        package=package.name,
        version=package.version,
        deb_sha256=package.sha256,
        documents=len(documents),
        text_bytes=sum(len(document.text.encode()) for document in documents),
        sha256=hashlib.sha256(content).hexdigest(),
    )


def _finish(corpus: Corpus, home: Path) -> Corpus:
    """Write the manifest last: without it there is no corpus."""
    scratch = home / "manifest.json.new"
    scratch.write_text(json.dumps(corpus.describe(), indent=1), encoding="utf-8")
    scratch.rename(home / "manifest.json")
    return corpus
