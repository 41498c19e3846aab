"""The text that packing is measured on; none of it is in `benchmarks.training_text`.

English prose from Debian packages (GPL or GFDL: read here, in nothing that is shipped), downloaded by `apt-get`; and
Wikipedia paragraphs in several languages and Python's manual, where a folder `shared/data` lies beside the repository.
"""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pipeline.documents.html_text import html_text
from pipeline.documents.splitting import Splitter

SEPARATOR = "\n\n"
ENGLISH = ("anarchism", "developers-reference", "debian-policy", "xquad en", "python_docs")
MIN_PASSAGE_CHARS = 200
MAX_BYTES = 2_000_000

_PACKAGES = {"anarchism": "15.3-3", "developers-reference": "12.18", "debian-policy": "4.6.2.0"}
_LANGUAGES = ("en", "de", "es", "ru", "zh", "ar")


def evaluation_passages(folder: Path, *, shared_data: Path) -> dict[str, list[str]]:
    """Return passages with their separator, by name of the text.

    Args:
        folder: Where packages are downloaded to and unpacked; what is there already stays.
        shared_data: Folder of JSONL corpora, skipped where it does not exist.
    """
    texts = {package: _package_texts(folder, package, version) for package, version in _PACKAGES.items()}
    if shared_data.is_dir():
        paragraphs = list(_lines(shared_data / "xquad"))
        for language in _LANGUAGES:
            mine = [line["text"] for line in paragraphs if line["id"].startswith(f"{language}-")]
            texts[f"xquad {language}"] = iter([SEPARATOR.join(mine)])
        texts["python_docs"] = (line["text"] for line in _lines(shared_data / "python_docs"))
    return {name: list(_passages(parts)) for name, parts in texts.items()}


def _package_texts(folder: Path, package: str, version: str) -> Iterator[str]:
    if not (folder / package).is_dir():
        subprocess.run(["apt-get", "download", f"{package}={version}"], cwd=folder, check=True)
        (archive,) = folder.glob(f"{package}_*.deb")
        subprocess.run(["dpkg-deb", "-x", archive, folder / package], check=True)
    for path in sorted((folder / package).glob("**/*.html")):
        if path.is_file():
            yield html_text(path.read_text(errors="replace"))


def _lines(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "docs.jsonl").open() as lines:
        yield from map(json.loads, lines)


def _passages(texts: Iterator[str]) -> Iterator[str]:
    splitter, taken_bytes = Splitter(), 0
    for text in texts:
        for passage in splitter.split(text):
            if len(passage.text) >= MIN_PASSAGE_CHARS:
                taken_bytes += len(passage.text.encode())
                yield passage.text + SEPARATOR
        if taken_bytes > MAX_BYTES:
            return
