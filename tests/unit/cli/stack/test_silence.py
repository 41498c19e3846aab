"""Whose time it was: the processor's, the disk's, or a process's own."""

import os
import time

import pytest

from pipeline.cli.stack.processor_time import Portion, ThreadTime, divide, read_threads
from pipeline.cli.stack.silence import OwnTicks, Silence

ASLEEP = ThreadTime(used_s=5.0, waited_s=1.0, state="S")


@pytest.mark.parametrize(
    ("now", "own"),
    [
        ([ThreadTime(5.0, 1.0, "S")], Portion(0.0, 1.0)),  # deadlocked
        ([ThreadTime(5.0, 1.0, "T")], Portion(0.0, 1.0)),  # stopped alone
        ([ThreadTime(6.0, 1.0, "R")], Portion(1.0, 0.0)),  # spins
        ([ThreadTime(5.25, 1.75, "R")], Portion(0.25, 0.0)),  # starved
        ([ThreadTime(5.0, 1.0, "R")], Portion(0.0, 0.0)),  # starved so much that its wait is not over
        ([ThreadTime(5.1, 1.5, "S")], Portion(0.1, 0.4)),
        ([ThreadTime(5.0, 1.0, "D")], Portion(0.0, 0.0)),  # waits for a disk
        ([ASLEEP, ThreadTime(0.0, 0.9, "S")], Portion(0.0, 0.1)),  # a new thread, starved
        ([], Portion(0.0, 1.0)),
    ],
)
def test_a_process_has_the_time_that_it_did_not_wait_for(now: list[ThreadTime], own: Portion) -> None:
    found = divide(1.0, {1: ASLEEP}, dict(enumerate(now, start=1)))
    assert (found.busy_s, found.idle_s) == pytest.approx((own.busy_s, own.idle_s))


def test_all_threads_of_a_process_and_its_descendants_are_read() -> None:
    assert os.getpid() in read_threads(os.getppid())
    mine = read_threads(os.getpid())[os.getpid()]
    assert mine.state == "R"
    assert mine.used_s > 0
    assert read_threads(2**22 + 1) == {}


def test_where_the_kernel_does_not_count_a_ready_thread_is_a_starved_one() -> None:
    ready, asleep = ({1: ThreadTime(0.0, None, state)} for state in "RS")
    assert divide(1.0, ready, ready) == Portion(0.0, 0.0)
    assert divide(1.0, asleep, asleep) == Portion(0.0, 1.0)


def test_silence_is_counted_from_when_it_was_heard_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.cli.stack.silence.read_threads", lambda _pid: {1: ASLEEP})
    silence = Silence()
    counted = [_counted(silence) for _ in range(4)]
    assert counted == [0.0, 0.0, 1.0, 2.0]  # heard; where it stands
    silence.end()
    assert _counted(silence) == 0.0


def test_loading_hardly_counts_as_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter(ThreadTime(float(second), 0.0, "R") for second in range(4))
    monkeypatch.setattr("pipeline.cli.stack.silence.read_threads", lambda _pid: {1: next(readings)})
    starts, works = Silence(), Silence()
    assert [_counted(works) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert [_counted(starts, starts=True) for _ in range(3)] == [0.0, 0.0, 0.1]


def test_a_loop_that_is_held_up_counts_no_more_than_two_ticks() -> None:
    ticks = OwnTicks(0.001)
    until = time.monotonic() + 0.05
    while time.monotonic() < until:
        pass
    assert ticks.tick() == 0.002
    assert ticks.tick() < 0.002


def _counted(silence: Silence, *, starts: bool = False) -> float:
    silence.count(1, 1.0, starts=starts)
    return silence.seconds
