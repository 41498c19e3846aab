"""gigatoken as the fast twin of a tokenizer: ten times as fast, used only while it gives the very same ids.

The reference decides. It says what a text is (normal form, what is refused), checks the twin when that is built and
about one text in `CHECK_EVERY` afterwards; on the first difference the twin is out for the life of the process. Two
kinds of text are always the reference's: those over `MAX_CHARACTERS`, since what its regular expression engine gives up
on must be refused alike, and those with characters too new for this Python, which may be letters to one library only
(`U+2B73A'll` is an example). Elsewhere no difference is known, whichever code point.

Build after fork: the library starts a thread. Many texts go to it as one batch, computed by the calling thread, which
fills one array; fewer than `_FEW` one by one, since a batch costs a hundred microseconds whatever is in it. It does not
take two calls at once, and it remembers every word it has met, so the twin locks, and is built anew when memory has
grown.
"""

import ctypes
import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, TypeAlias

import numpy as np
import psutil

from pipeline.errors import InvalidInput, is_panic
from pipeline.framing import RaggedIds, TokenIds
from pipeline.telemetry import metrics
from pipeline.telemetry.logs import get_logger
from pipeline.tokenizers.hf import HfTokenizer
from pipeline.tokenizers.tiktoken_bpe import TiktokenTokenizer
from pipeline.tokenizers.tokenizer import Tokenizer
from pipeline.tokenizers.twin_texts import twin_texts
from pipeline.tokenizers.unicode_versions import is_assigned_utf8
from pipeline.tokenizers.vocabulary import read_rank_file, vocabulary_definition

CHECK_EVERY = 500
"""Texts of which one is also encoded by the reference."""
MAX_CHARACTERS = 64 * 1024
"""Characters of the longest text that the twin encodes."""

_LIBRARY = "gigatoken"
_FEW = 32
"""Texts that take as long one by one as in a batch."""
_LOOK_EVERY = 4000
"""Texts after which the process' memory is looked at, which takes up to 0.4 ms."""
_MAX_GROWTH_BYTES = 192 * 1024 * 1024
"""Of the process since the twin was built; two thirds of it are what work takes."""
_LEAST_ROOM_BYTES = 96 * 1024 * 1024
"""For the words of a twin that was built anew; they take 60 MB after 100 MB of text in nine languages."""
_SCHEMES = {"cl100k_base": "cl100k", "o200k_base": "o200k", "o200k_harmony": "o200k"}
"""The library's name for how each packaged encoding splits text."""
_FAULTS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the library may raise; a time limit's exception, which may come at any moment, is none of these."""

_log = get_logger(__name__)

Reference: TypeAlias = TiktokenTokenizer | HfTokenizer
"""A tokenizer that may have a twin."""


class TwinBackend(Protocol):
    """What is used of the library."""

    def encode(self, text: bytes, /) -> TokenIds:
        """Return the ids of UTF-8."""

    def encode_batch(self, texts: list[bytes], /, *, parallel: bool) -> Any:
        """Return the ids of each text as a ragged `awkward.Array`."""


class GigatokenTwin:
    """A tokenizer with the identity of its reference, and its ids. Thread-safe."""

    def __init__(self, reference: Reference, *, build: Callable[[], TwinBackend]) -> None:
        """Build it; trusted from now on, so check it first (`load_twin`).

        Args:
            reference: Whose twin it is.
            build: Makes what computes; called again when that has grown too large.
        """
        self.reference = reference
        self.encoding = reference.encoding
        self.source = reference.source
        self.library = reference.library
        self.identity = reference.identity
        self.vocabulary_size = reference.vocabulary_size
        self.special_ids = reference.special_ids
        self.is_trusted = True
        """False from the first difference on: then all is the reference's."""
        self._build = build
        self._backend: TwinBackend | None = build()
        self._lock = threading.Lock()
        self._until_check = 0
        self._until_look = _LOOK_EVERY
        self._process = psutil.Process()
        self._most_bytes = self._process.memory_info().rss + _MAX_GROWTH_BYTES

    def __repr__(self) -> str:
        return f"<GigatokenTwin of {self.reference!r}, {'trusted' if self.is_trusted else 'out'}>"

    def encode(self, text: str) -> TokenIds:
        """Return the ids of ordinary text.

        Raises:
            InvalidInput: The reference refuses it.
        """
        return self.encode_batch((text,))[0]

    def encode_batch(self, texts: Sequence[str]) -> RaggedIds:
        """Return the ids of each text.

        Raises:
            InvalidInput: The reference refuses one of them.
        """
        if not self.is_trusted:
            return self.reference.encode_batch(texts)
        data = list(map(self.reference.canonical, texts))
        if not _are_for_twin(texts, data):
            return self._each_by_its_own(texts)
        try:
            found, due = self._computed(data)
        except _FAULTS as fault:
            return self._reference_instead(texts, fault=fault)
        except BaseException as error:
            if not is_panic(error):
                raise
            return self._reference_instead(texts, fault=error)
        for place in due:
            if not self._agrees(texts[place], found[place]):
                return self.reference.encode_batch(texts)
        return found

    def decode(self, ids: TokenIds) -> str:
        """Return the text of ids.

        Raises:
            ExactnessError: The ids are no text.
        """
        return self.reference.decode(ids)

    def control_id(self, name: str) -> int:
        """Return the id of a control token.

        Raises:
            InvalidInput: The vocabulary has none of that name.
        """
        return self.reference.control_id(name)

    def first_difference(self, texts: Sequence[str]) -> str | None:
        """Return the first text whose ids are not the reference's.

        Args:
            texts: Those that are the reference's anyway, and those that it refuses, are left out.
        """
        chosen: list[tuple[str, TokenIds]] = []
        data: list[bytes] = []
        for text in texts:
            with suppress(InvalidInput):
                canonical = self.reference.canonical(text)
                if _are_for_twin((text,), (canonical,)):
                    chosen.append((text, self.reference.encode(text)))
                    data.append(canonical)
        for (text, expected), each, of_batch in zip(chosen, data, self._batch(data), strict=True):
            if not (_same(self._ready().encode(each), expected) and _same(of_batch, expected)):
                return text
        return None

    def _each_by_its_own(self, texts: Sequence[str]) -> RaggedIds:
        if len(texts) == 1:
            return self.reference.encode_batch(texts)
        return RaggedIds.of([self.encode(text) for text in texts])

    def _computed(self, data: list[bytes]) -> tuple[RaggedIds, range]:
        """Return the ids of each text, and the places of those to check."""
        with self._lock:
            found = self._batch(data) if len(data) > _FEW else RaggedIds.of(list(map(self._ready().encode, data)))
            due = range(self._until_check, len(data), CHECK_EVERY)
            self._until_check = (due[-1] + CHECK_EVERY if due else self._until_check) - len(data)
            self._until_look -= len(data)
            if self._until_look < 0:
                self._until_look = _LOOK_EVERY
                self._forget_words()
            return found, due

    def _batch(self, data: list[bytes]) -> RaggedIds:
        layout = self._ready().encode_batch(data, parallel=False).layout
        return RaggedIds.end_to_end(layout.content.data, layout.offsets.data)

    def _ready(self) -> TwinBackend:
        if self._backend is None:
            self._backend = self._build()
        return self._backend

    def _forget_words(self) -> None:
        """Build anew if the process has grown too large: text that never repeats fills 100 bytes a word.

        The bound stays where it is, else a process would grow by a bit each time; unless others have grown, too, so
        that this would soon be done for nothing.
        """
        if self._process.memory_info().rss > self._most_bytes:
            self._backend = None  # both would not fit; whatever interrupts this, the next call builds it
            _give_back_memory()
            self._ready()
            self._most_bytes = max(self._most_bytes, self._process.memory_info().rss + _LEAST_ROOM_BYTES)

    def _agrees(self, text: str, found: TokenIds) -> bool:
        if _same(found, self.reference.encode(text)):
            metrics.TWIN_CHECKS.labels("same").inc()
            return True
        self._distrust(reason="other ids", text_sha256=hashlib.sha256(text.encode()).hexdigest())
        return False

    def _reference_instead(self, texts: Sequence[str], *, fault: BaseException) -> RaggedIds:
        expected = self.reference.encode_batch(texts)  # refusing is no fault where the reference does, too
        self._distrust(reason=type(fault).__name__)
        return expected

    def _distrust(self, *, reason: str, **fields: str) -> None:
        self.is_trusted = False
        metrics.TWIN_CHECKS.labels("differs").inc()
        _log.error("tokenizer.twin_differs", encoding=self.encoding, library=_LIBRARY, reason=reason, **fields)


def load_twin(reference: Reference) -> Tokenizer:
    """Return a tokenizer's fast twin, or the tokenizer itself where there is none that gives the same ids.

    Takes 0.2 to 0.4 s of one core, an eighth of it for checking, and 75 MB; caches take as much again.
    """
    if find_spec(_LIBRARY) is None:
        return reference
    try:
        twin = GigatokenTwin(reference, build=partial(_built, reference))
        differing = twin.first_difference(twin_texts())
    except _FAULTS as fault:
        return _refused(reference, reason=str(fault))
    except BaseException as error:
        if not is_panic(error):
            raise
        return _refused(reference, reason=str(error))
    if differing is not None:
        return _refused(reference, reason=f"other ids for {differing!r}")
    metrics.TWIN_CHECKS.labels("accepted").inc()
    return twin


def _refused(reference: Reference, *, reason: str) -> Reference:
    metrics.TWIN_CHECKS.labels("refused").inc()
    _log.warning("tokenizer.twin_refused", encoding=reference.encoding, library=_LIBRARY, reason=reason[:500])
    return reference


def _built(reference: Reference) -> TwinBackend:
    """Build what computes: it knows no special or added token, so that text stays text."""
    from gigatoken.gigatoken_rs import BPETokenizer, load_hf_json  # noqa: PLC0415  # an extra, not always installed

    if isinstance(reference, HfTokenizer):
        return load_hf_json(reference.merging_json())
    ranks = read_rank_file(vocabulary_definition(reference.encoding))
    with TemporaryDirectory(prefix="forefill-") as folder:  # it reads files only
        path = Path(folder, "ranks")
        path.write_bytes(ranks)
        return BPETokenizer.from_tiktoken(path, _SCHEMES[reference.encoding], {})


def _give_back_memory() -> None:
    """Have the C library return to the system what was freed, where it can (glibc): it keeps pieces for later."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _are_for_twin(texts: Sequence[str], canonical: Sequence[bytes]) -> bool:
    """Tell whether none is the reference's; normalizing takes away no character that is too new."""
    if max(map(len, texts), default=0) > MAX_CHARACTERS:
        return False
    return is_assigned_utf8(b"".join([data for text, data in zip(texts, canonical, strict=True) if not text.isascii()]))


def _same(found: TokenIds, expected: TokenIds) -> bool:
    return found.dtype == np.uint32 and found.tobytes() == expected.tobytes()
