"""When a schedule is due, through nights in which clocks are put forward and back."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.services.nominal_times import latest_nominal, next_nominal

BERLIN = "Europe/Berlin"
DAY_MS = 86_400_000

CHANGES = [
    *("2026-03-29T01:00Z", "2026-10-25T01:00Z", "2026-03-08T07:00Z", "2026-11-01T06:00Z"),
    *("2026-04-04T15:00Z", "2026-10-03T15:30Z", "2026-01-01T00:00Z"),
]
"""When clocks change in Europe and Troll, New York, and on Lord Howe; and a quiet day."""


def ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def shown(milliseconds: int | None) -> str:
    assert milliseconds is not None
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC).isoformat()


def in_between(cron: str, timezone: str, first: str, last: str) -> list[str]:
    """Every time a schedule means in an interval, followed one by one."""
    found, at = [], next_nominal(cron, timezone, after_ms=ms(first))
    while at is not None and at <= ms(last):
        found.append(shown(at))
        at = next_nominal(cron, timezone, after_ms=at)
    return found


def test_a_night_is_meant_on_the_wall_of_its_time_zone() -> None:
    assert in_between("0 2 * * *", BERLIN, "2026-01-10T00:00Z", "2026-01-12T00:00Z") == [
        "2026-01-10T01:00:00+00:00",
        "2026-01-11T01:00:00+00:00",
    ]


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("0 2 * * *", ["2026-03-28T01:00:00+00:00", "2026-03-29T01:00:00+00:00", "2026-03-30T00:00:00+00:00"]),
        ("30 2 * * *", ["2026-03-28T01:30:00+00:00", "2026-03-29T01:00:00+00:00", "2026-03-30T00:30:00+00:00"]),
    ],
)
def test_a_time_that_clocks_jump_over_is_due_once_when_the_gap_ends(cron: str, times: list[str]) -> None:
    assert in_between(cron, BERLIN, "2026-03-28T00:00Z", "2026-03-30T02:00Z") == times


def test_several_times_that_clocks_jump_over_are_due_once_together() -> None:
    """02:00, 02:20, 02:40 and 03:00 are one moment in that night."""
    assert in_between("*/20 2,3 * * *", BERLIN, "2026-03-29T00:00Z", "2026-03-29T01:20Z") == [
        "2026-03-29T01:00:00+00:00",
        "2026-03-29T01:20:00+00:00",
    ]


@pytest.mark.parametrize("cron", ["30 2 * * *", "*/30 2 * * *"])
def test_a_time_that_clocks_show_twice_is_due_the_first_time(cron: str) -> None:
    times = in_between(cron, BERLIN, "2026-10-24T22:00Z", "2026-10-25T12:00Z")
    assert times[-1] == "2026-10-25T00:30:00+00:00"
    assert len(times) == len(set(times)) == (1 if cron.startswith("30") else 2)


def test_every_hour_is_every_hour_that_passes() -> None:
    assert len(in_between("0 * * * *", BERLIN, "2026-10-24T21:59Z", "2026-10-25T21:59Z")) == 24
    assert len(in_between("0 * * * *", BERLIN, "2026-03-28T22:59Z", "2026-03-29T22:59Z")) == 24


def test_after_the_second_showing_of_an_hour_its_first_one_is_the_latest() -> None:
    for second_showing in ("2026-10-25T01:10:00Z", "2026-10-25T01:30:00Z", "2026-10-25T01:45:00Z"):
        latest = latest_nominal("30 2 * * *", BERLIN, until_ms=ms(second_showing))
        assert shown(latest) == "2026-10-25T00:30:00+00:00"


def test_the_latest_time_may_be_this_very_moment_and_never_a_later_one() -> None:
    at = ms("2026-05-05T00:00:00Z")
    assert latest_nominal("0 2 * * *", BERLIN, until_ms=at) == at
    assert latest_nominal("0 2 * * *", BERLIN, until_ms=at + 999) == at
    assert latest_nominal("0 2 * * *", BERLIN, until_ms=at - 1) == at - DAY_MS
    assert next_nominal("0 2 * * *", BERLIN, after_ms=at) == at + DAY_MS
    assert next_nominal("0 2 * * *", BERLIN, after_ms=at - 1) == at


def test_a_schedule_that_is_years_away_has_a_next_time() -> None:
    assert shown(next_nominal("0 0 29 2 *", "UTC", after_ms=ms("2026-01-01T00:00Z"))) == "2028-02-29T00:00:00+00:00"


@given(
    cron=st.sampled_from(
        ["0 2 * * *", "30 2 * * *", "*/20 1-3 * * *", "0 * * * *", "15 0,23 * * 0", "0 3 1 * *", "59 */2 * * *"]
    ),
    timezone=st.sampled_from(
        [BERLIN, "America/New_York", "Australia/Lord_Howe", "Antarctica/Troll", "Asia/Kolkata", "UTC", "Pacific/Apia"]
    ),
    around=st.sampled_from(CHANGES),
    minutes=st.integers(min_value=-400, max_value=400) | st.integers(min_value=0, max_value=3 * 366 * 24 * 60),
)
def test_followed_one_by_one_the_last_time_before_a_moment_is_its_latest(
    cron: str, timezone: str, around: str, minutes: int
) -> None:
    """The same moment is reached forwards and backwards, whatever clocks did in between."""
    until_ms = ms(around) + minutes * 60_000
    latest = latest_nominal(cron, timezone, until_ms=until_ms)
    assert latest is not None
    assert latest <= until_ms
    following = next_nominal(cron, timezone, after_ms=latest)
    assert following is not None
    assert following > until_ms
    assert next_nominal(cron, timezone, after_ms=latest - 1) == latest


def test_a_day_that_a_time_zone_left_out_is_made_up_for_at_its_end() -> None:
    times = in_between("0 2 * * *", "Pacific/Apia", "2011-12-29T00:00Z", "2011-12-31T00:00Z")
    assert times == ["2011-12-29T12:00:00+00:00", "2011-12-30T10:00:00+00:00", "2011-12-30T12:00:00+00:00"]
