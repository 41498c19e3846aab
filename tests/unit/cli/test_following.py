"""When a user is told that nothing moves."""

from pipeline.cli.following import StallClock


def test_a_standstill_is_told_once_and_again_after_it_moved() -> None:
    now = 0.0
    clock = StallClock(limit_s=30.0, clock=lambda: now)
    told = []
    for now, state in [(0, "a"), (29, "a"), (30, "a"), (60, "a"), (61, "b"), (90, "b"), (91, "b")]:  # noqa: B007  # read by the clock
        told.append(clock.stalls(state))
    assert told == [False, False, True, False, False, False, True]
