"""Events from bytes, wherever reads cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Unavailable
from pipeline.generation.event_stream import MAX_EVENT_BYTES, CharacterJoiner, EventReader, whole

STREAM = (
    'event: token\r\ndata: {"a": "é\u2028\u0085🤖"}\r\n\r\n: a comment\n\ndata:no space\n\nid: 7\n'
    "data: one\ndata: two\n\ndata: never ended"
).encode()
EVENTS = ['{"a": "é\u2028\u0085🤖"}'.encode(), b"no space", b"one\ntwo"]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_events_do_not_depend_on_how_bytes_come(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader()
    assert [data for a, b in pairwise(edges) for data in reader.feed(STREAM[a:b])] == EVENTS


@pytest.mark.parametrize(
    "flood",
    [b"data: " + b"x" * (MAX_EVENT_BYTES + 1), (b"data: " + b"x" * 1000 + b"\n") * (MAX_EVENT_BYTES // 1000 + 1)],
)
def test_an_endless_event_is_refused(flood: bytes) -> None:
    with pytest.raises(Unavailable, match="too large"):
        list(EventReader().feed(flood))


@given(st.text(), st.integers(1, 3))
def test_halves_of_a_character_are_joined(text: str, size: int) -> None:
    """Cut between UTF-16 units, as engines do that count in those."""
    units = text.encode("utf-16-le")
    parts = [units[at : at + 2 * size].decode("utf-16-le", "surrogatepass") for at in range(0, len(units), 2 * size)]
    joiner = CharacterJoiner()
    pieces = [joiner.join(part) for part in parts]
    assert "".join(pieces) + joiner.rest() == text
    for piece in pieces:
        piece.encode()


def test_half_a_character_alone_is_replaced() -> None:
    joiner = CharacterJoiner()
    assert joiner.join("a\ud83e") == "a"
    assert joiner.rest() == "�"
    assert whole("a\udd16b") == "a�b"
