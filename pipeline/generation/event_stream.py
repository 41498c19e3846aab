"""Server-sent events, read from bytes: lines end at CR and LF only, and a character may be cut anywhere between reads.

Libraries that split lines of text also split at U+2028 and U+0085, which JSON may hold as they are.
"""

from collections.abc import Iterator

from pipeline.generation.refusals import unreadable

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Most bytes of one event."""


class EventReader:
    """Takes bytes as they come and gives the data of whole events; names, ids and comments are skipped."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []
        self._held_bytes = 0

    def feed(self, received: bytes) -> Iterator[bytes]:
        """Yield the data of every event that is whole now.

        Raises:
            Unavailable: An event is larger than any engine sends.
        """
        *lines, self._rest = (self._rest + received).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise unreadable("is too large")
        for line in lines:
            yield from self._take(line.removesuffix(b"\r"))

    def _take(self, line: bytes) -> Iterator[bytes]:
        if not line:
            if self._data:
                yield b"\n".join(self._data)
            self._data, self._held_bytes = [], 0
        elif line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
            self._held_bytes += len(line)
            if self._held_bytes > MAX_EVENT_BYTES:
                raise unreadable("is too large")


class CharacterJoiner:
    """Holds back half a character at the end of a text until the other half comes.

    JSON can carry the two surrogates of a character in two events; apart they are no text.
    """

    def __init__(self) -> None:
        self._held = ""

    def join(self, text: str) -> str:
        """Return what is whole so far."""
        text = self._held + text
        self._held = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        return whole(text)

    def rest(self) -> str:
        """Return what never became whole, as a replacement character."""
        held, self._held = self._held, ""
        return whole(held)


def whole(text: str) -> str:
    """Return a text with surrogates joined, and lone ones replaced."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
