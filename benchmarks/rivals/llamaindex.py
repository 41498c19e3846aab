"""The environment of the LlamaIndex rival: made once in the user's cache folder, used as a process."""

import base64
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, TypeAlias

from benchmarks.corpus import cache_folder
from benchmarks.texts import ENCODING
from pipeline.tokenizers.vocabulary import load_ranks, vocabulary_definition

_HERE = Path(__file__).resolve().parent
REQUIREMENTS = _HERE / "requirements-llamaindex.txt"
_INSTALL_S = 600.0
_COPIES = ("--link-mode", "copy")
"""For uv, which would link the files to its cache: NLTK, which LlamaIndex loads, refuses data with a second name."""

LlamaIndexKind: TypeAlias = Literal["nodes", "documents"]
"""What it is given: texts that are nodes as they are, or documents that it cuts itself."""


class NotInstalledError(Exception):
    """The rival cannot be had here, and why."""


class LlamaIndexRival:
    """Its interpreter, and the files it is given."""

    def __init__(self, folder: Path, texts: Sequence[str], *, kind: LlamaIndexKind) -> None:
        """Write the texts and the vocabulary down.

        Args:
            folder: For these files.
            texts: What it tokenizes.
            kind: What each text is.

        Raises:
            NotInstalledError: Its packages cannot be installed.
        """
        self._python = _environment()
        self._kind = kind
        self._texts, self._ranks = folder / "llamaindex-texts.jsonl", folder / "llamaindex-ranks.json"
        self._texts.write_text("".join(f"{json.dumps(text)}\n" for text in texts), encoding="utf-8")
        definition = vocabulary_definition(ENCODING)
        ranks = [(base64.b64encode(token).decode(), rank) for token, rank in load_ranks(definition).items()]
        described = {"name": ENCODING, "pattern": definition.pattern, "ranks": ranks}
        self._ranks.write_text(json.dumps(described), encoding="utf-8")
        self._count = len(texts)

    def run(self, *, host: str, port: int) -> float:
        """Fill the cache once in a new process; return the seconds after its start-up.

        Raises:
            NotInstalledError: It fails.
        """
        done = subprocess.run(
            [self._python, _HERE / "llamaindex_pipeline.py", self._kind, self._texts, self._ranks, host, str(port)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NotInstalledError(f"LlamaIndex failed: {done.stderr.strip().splitlines()[-1:]}")
        found = json.loads(done.stdout.splitlines()[-1])
        is_whole = found["nodes"] == self._count if self._kind == "nodes" else found["nodes"] >= self._count
        if not is_whole:
            raise NotInstalledError(f"LlamaIndex returned {found['nodes']} nodes of {self._count} {self._kind}")
        return float(found["seconds"])


def install_command(python: Path) -> list[str | Path]:
    """Return the command that installs the rival; uv takes seconds where pip takes minutes."""
    if find_spec("uv") is not None:
        uv = [sys.executable, "-m", "uv", "pip", "install", "-q"]
        return [*uv, *_COPIES, "--python", python, "-r", REQUIREMENTS]
    return [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", REQUIREMENTS]


def _environment() -> Path:
    """Return the rival's interpreter, its environment made first where it is not there yet."""
    home = cache_folder() / "llamaindex"
    python = home / "bin" / "python"
    stamp = home / REQUIREMENTS.name
    wanted = f"{REQUIREMENTS.read_text(encoding='utf-8')}# uv {' '.join(_COPIES)}\n"
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", "--clear", home], check=True, capture_output=True, timeout=_INSTALL_S
        )
        subprocess.run(install_command(python), check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except (OSError, subprocess.SubprocessError) as error:
        said = str(getattr(error, "stderr", "") or error).strip().splitlines()[-1]
        raise NotInstalledError(f"LlamaIndex cannot be installed: {said}") from error
    stamp.write_text(wanted, encoding="utf-8")
    return python
