"""A Celery worker whose tokenizer comes to grief at marked texts: `python -m tests.support.hostile_worker worker …`.

Everything else of it is the real worker. The marks stand for what libraries have done: hang where Python's signals
still arrive, hang in native code with and without the interpreter's lock, and panic.
"""

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Sequence

from celery.__main__ import main

from pipeline.framing import RaggedIds, TokenIds
from pipeline.tokenizers import GigatokenTwin
from pipeline.tokenizers.tiktoken_bpe import TiktokenTokenizer

SLEEPS = "Here the tokenizer sleeps."
"""Python's signals arrive."""
DEAF = "Here the tokenizer computes without the lock."
"""Other threads go on, the heartbeat's too, but no signal is handled."""
LOCKED = "Here the tokenizer computes and holds the lock."
"""Nothing else of the process goes on."""
PANICS = "Here the tokenizer panics."

_encode = TiktokenTokenizer.encode
_encode_batch = GigatokenTwin.encode_batch


class PanicException(BaseException):  # named as PyO3 names it
    """What a panic in Rust becomes."""


def _suffer(text: str) -> None:
    if SLEEPS in text:
        time.sleep(3600)
    if DEAF in text:
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    if LOCKED in text:
        deque(itertools.repeat(None), maxlen=0)
    if PANICS in text:
        raise PanicException(text)


def _encode_or_suffer(self: TiktokenTokenizer, text: str) -> TokenIds:
    _suffer(text)
    return _encode(self, text)


def _encode_batch_or_suffer(self: GigatokenTwin, texts: Sequence[str]) -> RaggedIds:
    for text in texts:
        _suffer(text)
    return _encode_batch(self, texts)


if __name__ == "__main__":
    TiktokenTokenizer.encode = _encode_or_suffer  # type: ignore[method-assign]  # the point of this module
    GigatokenTwin.encode_batch = _encode_batch_or_suffer  # type: ignore[method-assign]  # the same
    main()
