"""The text that the shipped dictionaries are trained on: several languages and code, all under permissive licences.

Debian 12 packages at pinned versions, downloaded by `apt-get` when a dictionary is trained and at no other time. None
of it may be evaluated on; what `benchmarks.codec` evaluates on is none of it.

    package               licence                     what it gives
    apache2-doc           Apache-2.0                  prose in English and nine other languages
    postgresql-doc-15     PostgreSQL (MIT-like)       English prose, SQL
    rust-doc              MIT or Apache-2.0           English prose (the book, the library's reference), Rust
    sqlite3-doc           public domain               English prose, SQL
    jargon-text           public domain               English prose in everyday words
    wordnet-base          WordNet (BSD-like)          English definitions
    nodejs-doc            MIT                         reference in Markdown, JavaScript
    cmake-doc             BSD-3-Clause                reference
    postgresql-15         PostgreSQL (MIT-like)       messages in ten languages
    libpython3.11-stdlib  PSF-2.0                     Python
    golang-1.19-src       BSD-3-Clause                Go
    rust-src              MIT or Apache-2.0           Rust
"""

import gettext
import gzip
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.documents.html_text import html_text
from pipeline.documents.splitting import Splitter

SEED = 7
MIN_PASSAGE_CHARS = 200
_MAX_FILE_BYTES = 400_000

PACKAGES = {
    "apache2-doc": "2.4.68-1~deb12u1",
    "postgresql-doc-15": "15.18-0+deb12u1",
    "rust-doc": "1.63.0+dfsg1-2",
    "sqlite3-doc": "3.40.1-2+deb12u2",
    "jargon-text": "4.4.7-4.1",
    "wordnet-base": "1:3.0-37",
    "nodejs-doc": "18.20.4+dfsg-1~deb12u2",
    "cmake-doc": "3.25.1-1",
    "postgresql-15": "15.18-0+deb12u1",
    "libpython3.11-stdlib": "3.11.2-6+deb12u6",
    "golang-1.19-src": "1.19.8-2",
    "rust-src": "1.63.0+dfsg1-2",
}
"""Package and version; where a mirror has only newer ones, snapshot.debian.org has these."""


@dataclass(frozen=True, slots=True)
class Source:
    """Files of one kind, and how much of them is read."""

    package: str
    """Debian package."""
    pattern: str
    """Glob below the unpacked package."""
    max_bytes: int
    """Bytes of text taken, from files in an order drawn with `SEED`."""


SOURCES = (
    Source("apache2-doc", "usr/share/doc/apache2-doc/manual/en/**/*.html", 3_000_000),
    Source("postgresql-doc-15", "usr/share/doc/**/*.html", 5_000_000),
    Source("rust-doc", "usr/share/doc/rust-doc/html/book/*.html", 2_000_000),
    Source("rust-doc", "usr/share/doc/rust-doc/html/std/**/*.html", 500_000),
    Source("sqlite3-doc", "usr/share/doc/sqlite3/**/*.html", 4_000_000),
    Source("jargon-text", "usr/share/doc/jargon-text/jargon.txt.gz", 2_000_000),
    Source("wordnet-base", "usr/share/wordnet/data.noun", 1_000_000),
    Source("nodejs-doc", "usr/share/doc/nodejs/api/*.md.gz", 1_000_000),
    Source("cmake-doc", "usr/share/doc/**/*.txt", 500_000),
    Source("libpython3.11-stdlib", "usr/lib/python3.11/**/*.py", 1_500_000),
    Source("golang-1.19-src", "usr/share/go-1.19/src/**/*.go", 1_000_000),
    Source("rust-src", "usr/src/**/library/**/*.rs", 1_000_000),
    *(
        Source("apache2-doc", f"usr/share/doc/apache2-doc/manual/{language}/**/*.html", 500_000)
        for language in ("de", "es", "fr", "ja", "ko", "pt-br", "ru", "tr", "zh-cn")
    ),
    *(
        Source("postgresql-15", f"usr/share/locale/{language}/LC_MESSAGES/postgres-15.mo", 150_000)
        for language in ("de", "es", "fr", "it", "ja", "ko", "ru", "sv", "uk", "zh_CN")
    ),
)


def download(folder: Path) -> None:
    """Download and unpack the pinned packages; what is there already stays."""
    for package, version in PACKAGES.items():
        if (folder / package).is_dir():
            continue
        subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=folder, check=True)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder / package], check=True)


def passages(folder: Path) -> Iterator[str]:
    """Yield every source's passages, cut as a corpus with the default splitter is, each text once."""
    splitter, seen = Splitter(), set[int]()
    for source in SOURCES:
        taken_bytes = 0
        for text in _texts(folder / source.package, source.pattern):
            for passage in splitter.split(text):
                if len(passage.text) < MIN_PASSAGE_CHARS or hash(passage.text) in seen:
                    continue
                seen.add(hash(passage.text))
                taken_bytes += len(passage.text.encode())
                yield passage.text
            if taken_bytes >= source.max_bytes:
                break


def _texts(package: Path, pattern: str) -> Iterator[str]:
    files = sorted(path for path in package.glob(pattern) if path.is_file())
    random.Random(SEED).shuffle(files)
    for path in files:
        if path.suffix == ".mo":
            yield _translations(path)
            continue
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if path.suffix == ".html" and len(content) > _MAX_FILE_BYTES:
            continue
        text = content.decode(errors="replace")
        if path.name.startswith("data."):
            yield re.sub(r"^.*?\| ", "", text, flags=re.MULTILINE)[:1_000_000]
        else:
            yield html_text(text) if path.suffix == ".html" else text


def _translations(path: Path) -> str:
    with path.open("rb") as file:
        catalogue = gettext.GNUTranslations(file)._catalog  # type: ignore[attr-defined]  # noqa: SLF001  # all messages
    text = "\n\n".join(message for key, message in catalogue.items() if key and isinstance(message, str))
    return text[:150_000]
