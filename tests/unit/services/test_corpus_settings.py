import pytest

from pipeline.errors import InvalidInput
from pipeline.services.corpus_settings import NO_SCHEDULE, check_schedule, check_timezone


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        ("0 3 * * *", "0 3 * * *"),
        ("  */15   0-6,22  1 JAN mon ", "*/15 0-6,22 1 JAN mon"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 L * 5#2", "0 0 L * 5#2"),
        (NO_SCHEDULE, NO_SCHEDULE),
    ],
)
def test_a_cron_expression_of_five_fields_is_a_schedule(given: str, plain: str) -> None:
    assert check_schedule(given) == plain


@pytest.mark.parametrize(
    "given",
    [
        *(" ", "x", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *"),
        *("* * * * 8", "*/0 * * * *", "5-1 * * * *", "0 0 31 2 *", "0 0 31 4,6 *", "a b c d e", "\0 * * * *"),
        *("1," * 100 + "1 * * * *", "9" * 5000 + " * * * *"),
    ],
)
def test_anything_else_is_none(given: str) -> None:
    with pytest.raises(InvalidInput, match="schedule"):
        check_schedule(given)


@pytest.mark.parametrize("name", ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+1"])
def test_names_of_the_iana_database_are_time_zones(name: str) -> None:
    assert check_timezone(name) == name


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../UTC", "/etc/passwd", "Europe", "UTC\0", "\ud800", "x" * 65, "UTC ", "Europe/"]
)
def test_other_names_are_not(name: str) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        check_timezone(name)
