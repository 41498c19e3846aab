"""Text without repetitions: what a cache or an allocator has seen before costs less than what is new."""

import hashlib
import re
from collections.abc import Iterator

_BREAK = re.compile(r"\n[ \t\r\f\v]*\n\s*")
_HASH_BYTES = 12


class DistinctText:
    """Drops paragraphs that an earlier document, or the same one, had already.

    Licences, navigation and generated tables fill half of a documentation package; they would make a corpus look
    larger than it is. Paragraphs are compared by hash and by their words, so that mere layout makes no difference.
    """

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def keep_new(self, text: str) -> str:
        """Return a text without its known paragraphs, which are those set apart by blank lines."""
        return "\n\n".join(self._new_paragraphs(text))

    def _new_paragraphs(self, text: str) -> Iterator[str]:
        for paragraph in _BREAK.split(text):
            words = " ".join(paragraph.split())
            if not words:
                continue
            name = hashlib.blake2b(words.encode(), digest_size=_HASH_BYTES).digest()
            if name not in self._seen:
                self._seen.add(name)
                yield paragraph.rstrip()
