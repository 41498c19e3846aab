"""Services that are away for a moment."""

import pytest

from pipeline.cli.output import Output
from pipeline.cli.patience import patiently
from pipeline.errors import InvalidInput, Unavailable


class Flaky:
    """Fails so many times."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def test_a_service_that_comes_back_is_waited_for_and_that_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    flaky = Flaky(*[Unavailable("the database is busy", service="database")] * 2)
    assert patiently(Output(as_json=False))(flaky) == "answer"
    assert capsys.readouterr().err == "the database is busy; trying again for 60 s\n"


def test_a_service_that_stays_away_is_an_error() -> None:
    flaky = Flaky(*[Unavailable("gone", service="database")] * 5)
    with pytest.raises(Unavailable, match="gone"):
        patiently(Output(as_json=False), patience_s=0.0)(flaky)


def test_what_waiting_cannot_help_is_not_repeated() -> None:
    flaky = Flaky(InvalidInput("wrong"))
    with pytest.raises(InvalidInput):
        patiently(Output(as_json=False))(flaky)
    assert flaky.calls == 1
