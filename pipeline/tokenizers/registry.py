"""Specs by name, each built once per process.

A vocabulary takes tenths of a second and 20 to 60 MB: whoever comes while one is being built waits for that one. Build
after fork; nothing is built at import.
"""

import threading

from pipeline.errors import InvalidInput
from pipeline.framing import known_frames, packaged_frame
from pipeline.tokenizers.spec import TokenSpec, build_spec
from pipeline.tokenizers.tiktoken_bpe import TiktokenTokenizer, load_tiktoken
from pipeline.tokenizers.vocabulary import known_encodings

_lock = threading.Lock()
_tokenizers: dict[str, TiktokenTokenizer] = {}
_specs: dict[str, TokenSpec] = {}


def load_spec(spec_id: str) -> TokenSpec:
    """Return a spec made of a packaged encoding and a packaged frame, `ENCODING/FRAME`.

    Raises:
        InvalidInput: The name is malformed, or its encoding or frame unknown; the message names the known ones.
        ConfigurationError: The vocabulary is missing or has other bytes than the pinned ones.
        ExactnessError: The tokenizer does not cut at the frame's seams.
    """
    if (ready := _specs.get(spec_id)) is not None:
        return ready
    encoding, slash, frame_name = spec_id.partition("/")
    if not slash:
        raise InvalidInput(f"spec {spec_id!r} is not like 'o200k_base/plain'; {_known()}", item="spec")
    with _lock:
        if spec_id not in _specs:
            frame = packaged_frame(frame_name)
            if encoding not in _tokenizers:
                _tokenizers[encoding] = load_tiktoken(encoding)
            _specs[spec_id] = build_spec(_tokenizers[encoding], frame=frame)
        return _specs[spec_id]


def _known() -> str:
    return f"known encodings: {', '.join(known_encodings())}; known frames: {', '.join(known_frames())}"
