"""Back-off: doubling, capped, spread over its upper half."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.retry import backoff_s


def test_waits_double_up_to_the_cap() -> None:
    assert [backoff_s(attempt, cap_s=10, spread=1.0) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(attempt=st.integers(1, 10_000), cap_s=st.floats(0.5, 3600), spread=st.floats(0, 1))
def test_a_wait_lies_in_the_upper_half_and_never_over_the_cap(attempt: int, cap_s: float, spread: float) -> None:
    full = backoff_s(attempt, cap_s=cap_s, spread=1.0)
    assert full / 2 <= backoff_s(attempt, cap_s=cap_s, spread=spread) <= full <= cap_s


def test_many_jobs_that_fail_together_do_not_return_together() -> None:
    assert len({backoff_s(3) for _ in range(20)}) > 10
