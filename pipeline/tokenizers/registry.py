"""Specs by name and by fingerprint, each built once per process.

A vocabulary takes tenths of a second and 20 to 60 MB: whoever comes while one is being built waits for that one. Build
after fork; nothing is built at import. Where a process asks for twins (`use_twins`), each tokenizer is the fast twin of
its reference if there is one with the same ids.
"""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import ConfigurationError, ExactnessError, InvalidInput
from pipeline.framing import Frame, known_frames, packaged_frame
from pipeline.tokenizers.gigatoken import Reference, load_twin
from pipeline.tokenizers.golden_ids import Golden
from pipeline.tokenizers.hf import load_hf
from pipeline.tokenizers.spec import TokenSpec, build_spec, check_golden
from pipeline.tokenizers.tiktoken_bpe import load_tiktoken
from pipeline.tokenizers.tokenizer import Tokenizer
from pipeline.tokenizers.vocabulary import known_encodings

_lock = threading.Lock()
_twins = threading.Event()
"""Set while tokenizers are built as twins."""
_tokenizers: dict[str, Tokenizer] = {}
_specs: dict[str, TokenSpec] = {}
_files: dict[tuple[str, str], Tokenizer] = {}
_recorded: dict[str, TokenSpec] = {}


@dataclass(frozen=True, slots=True)
class RecordedSpec:
    """A spec as it was recorded when it was added: what to build it of, and what it must turn out to be."""

    spec_id: str
    encoding: str
    frame: Frame
    fingerprint: str
    golden: Golden
    tokenizer_sha256: str | None
    """SHA-256 of the `tokenizer.json` it is made of, hex; None for a packaged encoding."""


def use_twins(*, enabled: bool) -> None:
    """Say whether tokenizers that are built from now on are fast twins; those that are there stay what they are.

    Worth its half a second and 100 MB where much is tokenized: in workers. Off until somebody asks for it.
    """
    if enabled:
        _twins.set()
    else:
        _twins.clear()


def load_spec(spec_id: str) -> TokenSpec:
    """Return a spec made of a packaged encoding and a packaged frame, or a recorded one that is built already.

    Raises:
        InvalidInput: The name is malformed, or its encoding or frame unknown; the message names the known ones.
        ConfigurationError: The vocabulary is missing or has other bytes than the pinned ones.
        ExactnessError: The tokenizer does not cut at the frame's seams.
    """
    if (ready := _specs.get(spec_id)) is not None:
        return ready
    if not is_packaged(spec_id):
        for recorded in list(_recorded.values()):
            if recorded.spec_id == spec_id:
                return recorded
    encoding, slash, frame_name = spec_id.partition("/")
    if not slash:
        raise InvalidInput(f"spec {spec_id!r} is not like 'o200k_base/plain'; {_known()}", item="spec")
    with _lock:
        if spec_id not in _specs:
            frame = packaged_frame(frame_name)
            _specs[spec_id] = build_spec(_packaged_tokenizer(encoding), frame=frame)
        return _specs[spec_id]


def is_packaged(spec_id: str) -> bool:
    """Tell whether `load_spec` knows a spec of that name."""
    encoding, _, frame_name = spec_id.partition("/")
    return encoding in known_encodings() and frame_name in known_frames()


def load_recorded(recorded: RecordedSpec, *, read_tokenizer: Callable[[str], bytes]) -> TokenSpec:
    """Return a recorded spec; the first time it is built and compared with what was recorded.

    Args:
        recorded: The spec.
        read_tokenizer: Returns the content of a `tokenizer.json` by its SHA-256; called only to build one.

    Raises:
        ConfigurationError: The content has another hash.
        ExactnessError: This process computes other ids than were recorded.
    """
    if (ready := _recorded.get(recorded.fingerprint)) is not None:
        return ready
    with _lock:
        if recorded.fingerprint not in _recorded:
            if recorded.tokenizer_sha256 is None:
                spec = build_spec(_packaged_tokenizer(recorded.encoding), frame=recorded.frame)
            else:
                tokenizer = _file_tokenizer(recorded.tokenizer_sha256, recorded.encoding, read_tokenizer)
                spec = build_spec(tokenizer, frame=recorded.frame)
            check_golden(spec, recorded=recorded.golden)
            if spec.fingerprint != recorded.fingerprint:
                raise ExactnessError(
                    f"spec {recorded.spec_id} is recorded with fingerprint {recorded.fingerprint}, but this process "
                    f"computes {spec.fingerprint}"
                )
            _recorded[recorded.fingerprint] = spec
        return _recorded[recorded.fingerprint]


def prepared_spec(fingerprint: str) -> TokenSpec | None:
    """Return a recorded spec if this process has built it already; never waits."""
    return _recorded.get(fingerprint)


def prepared_encoding(fingerprint: str) -> str | None:
    """Return the encoding of any spec that this process has built, recorded or packaged; never waits."""
    if (spec := _recorded.get(fingerprint)) is not None:
        return spec.encoding
    return next((spec.encoding for spec in list(_specs.values()) if spec.fingerprint == fingerprint), None)


def _packaged_tokenizer(encoding: str) -> Tokenizer:
    if encoding not in _tokenizers:
        _tokenizers[encoding] = _fast(load_tiktoken(encoding))
    return _tokenizers[encoding]


def _file_tokenizer(sha256: str, name: str, read: Callable[[str], bytes]) -> Tokenizer:
    """Return the tokenizer of a file; several frames share it."""
    key = (sha256, name)
    if key not in _files:
        content = read(sha256)
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ConfigurationError(f"the stored tokenizer.json of {name} no longer has SHA-256 {sha256}")
        _files[key] = _fast(load_hf(content, name=name))
    return _files[key]


def _fast(reference: Reference) -> Tokenizer:
    return load_twin(reference) if _twins.is_set() else reference


def _known() -> str:
    return f"known encodings: {', '.join(known_encodings())}; known frames: {', '.join(known_frames())}"
