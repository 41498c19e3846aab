"""The clock of connections, and who reads an answer: pure parts, without a socket."""

import pytest

from pipeline.listening import Connections, ListeningLimits, Refusal
from pipeline.listening.limits import MIN_BODY_BYTES_PER_S
from pipeline.listening.unread import Unread


def connections() -> Connections:
    return Connections(ListeningLimits(), refusal=lambda _status, _detail: Refusal(b"", b""))


def test_the_clock_counts_what_the_loop_lived_through() -> None:
    kept = connections()
    for now in (100.0, 100.5, 101.0):
        kept.tick(now)
    assert kept.clock == pytest.approx(1.0)


def test_a_process_that_was_paused_has_waited_for_nobody() -> None:
    kept = connections()
    kept.tick(100.0)
    kept.tick(100.0 + 3600)
    assert kept.clock <= 1.0


def test_a_reader_that_stands_still_is_over_after_the_timeout() -> None:
    unread = Unread(30.0)
    assert not unread.is_over(1000, clock=10.0, ended=False)
    assert not unread.is_over(1000, clock=40.0, ended=False)
    assert unread.is_over(1000, clock=40.5, ended=False)


def test_a_stream_that_is_read_may_last() -> None:
    unread = Unread(30.0)
    for second in range(0, 3600, 10):
        assert not unread.is_over(50_000 + second % 20, clock=float(second), ended=False)


def test_an_answer_that_is_read_drop_by_drop_is_over() -> None:
    unread = Unread(30.0)
    looks = [unread.is_over(10_000_000 - second, clock=float(second), ended=True) for second in range(60)]
    assert looks.index(True) == 31


def test_an_answer_that_is_read_slowly_but_steadily_is_not() -> None:
    unread = Unread(30.0)
    for second in range(1000):
        left = 20_000_000 - second * 2 * MIN_BODY_BYTES_PER_S
        assert not unread.is_over(left, clock=float(second), ended=True)


def test_what_was_read_to_its_end_begins_anew() -> None:
    unread = Unread(30.0)
    for clock, left in ((0.0, 10), (29.0, 0), (31.0, 10), (60.0, 10)):
        assert not unread.is_over(left, clock=clock, ended=True)
