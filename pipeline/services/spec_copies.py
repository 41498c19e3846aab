"""Copies of recorded specs on disk, for an API process that starts while SQL is away.

They are believed only as far as their hashes go: a tokenizer file must have its SHA-256, and a spec built of a copy the
fingerprint that the configuration names.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import orjson

from pipeline.errors import ForefillError
from pipeline.framing import parse_frame
from pipeline.telemetry.logs import get_logger
from pipeline.tokenizers import RecordedSpec, parse_golden

_log = get_logger(__name__)


class SpecCopies:
    """A folder of copies, or nothing at all."""

    def __init__(self, folder: Path | None) -> None:
        """Remember where.

        Args:
            folder: Made when first needed; None for nowhere.
        """
        self._folder = folder

    def write(self, recorded: RecordedSpec, *, read_tokenizer: Callable[[str], bytes]) -> None:
        """Keep a spec and its tokenizer file unless they are kept; a disk that refuses is logged, no more."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            sha256 = recorded.tokenizer_sha256
            if sha256 is not None and not self._tokenizer_path(sha256).exists():
                _write(self._tokenizer_path(sha256), read_tokenizer(sha256))
            if not self._spec_path(recorded.fingerprint).exists():
                _write(self._spec_path(recorded.fingerprint), _encode(recorded))
        except (OSError, ForefillError) as error:
            _log.warning("spec.copy_not_written", spec=recorded.spec_id, error=str(error))

    def read(self, fingerprint: str) -> RecordedSpec | None:
        """Return a spec that was kept, None if there is none to believe."""
        if self._folder is None:
            return None
        try:
            return _decode(self._spec_path(fingerprint).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ForefillError, ValueError, KeyError, TypeError) as error:
            _log.warning("spec.copy_not_read", fingerprint=fingerprint, error=str(error))
            return None

    def tokenizer(self, sha256: str) -> bytes | None:
        """Return a tokenizer file that was kept; whoever builds of it checks its hash."""
        if self._folder is None:
            return None
        try:
            return self._tokenizer_path(sha256).read_bytes()
        except OSError:
            return None

    def _tokenizer_path(self, sha256: str) -> Path:
        assert self._folder is not None  # noqa: S101  # callers looked
        return self._folder / f"{sha256}.tokenizer.json"

    def _spec_path(self, fingerprint: str) -> Path:
        assert self._folder is not None  # noqa: S101  # callers looked
        return self._folder / f"{fingerprint}.spec.json"


def _write(path: Path, data: bytes) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(draft).replace(path)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise


def _encode(recorded: RecordedSpec) -> bytes:
    return orjson.dumps(
        {
            "id": recorded.spec_id,
            "encoding": recorded.encoding,
            "frame": recorded.frame.canonical_json().decode(),
            "fingerprint": recorded.fingerprint,
            "golden": recorded.golden.to_json(),
            "tokenizer_sha256": recorded.tokenizer_sha256,
        }
    )


def _decode(data: bytes) -> RecordedSpec:
    fields = orjson.loads(data)
    return RecordedSpec(
        spec_id=fields["id"],
        encoding=fields["encoding"],
        frame=parse_frame(fields["frame"]),
        fingerprint=fields["fingerprint"],
        golden=parse_golden(fields["golden"]),
        tokenizer_sha256=fields["tokenizer_sha256"],
    )
