from datetime import datetime, timedelta

import pytest

from pipeline.documents.corpora import Corpus
from pipeline.errors import InvalidInput
from pipeline.services import time_zones
from pipeline.services.corpus_settings import NO_SCHEDULE, check_schedule, check_timezone
from pipeline.services.diagnosis import corpora
from pipeline.services.time_zones import load_zone


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


@pytest.mark.parametrize("name", ["localtime", "posix/UTC", "right/UTC", "Factory", "posixrules", "utc", "zone.tab"])
def test_names_that_hosts_resolve_otherwise_or_not_at_all_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        check_timezone(name)


def test_every_zone_has_the_rules_of_the_package_and_none_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the host's zones were asked")

    monkeypatch.setattr("zoneinfo._common.load_tzdata", asked)
    time_zones._read.cache_clear()
    names = time_zones.zone_names()
    assert len(names) > 400
    assert {load_zone(name).key for name in ("Europe/Berlin", "America/Argentina/ComodRivadavia", "UTC")} <= names
    moment = datetime(2026, 7, 1, tzinfo=load_zone("Europe/Berlin"))
    assert moment.utcoffset() == timedelta(hours=2)


def test_a_corpus_whose_zone_an_earlier_version_took_is_still_shown_and_doctor_names_it() -> None:
    corpus = Corpus(1, "docs", "docs.1", "", "", "0 2 * * *", "localtime", 16, 1)
    (finding,) = corpora._check_timezone(corpus)
    assert "time zone 'localtime'" in finding.message
    assert "its schedule is not followed" in finding.message
