"""The demo's exit code is 0 only if everything it claims was seen."""

from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from demo import __main__ as entry
from demo.checks import CannotGoOn, Checks, Claim
from demo.processes import beyond_loopback
from demo.screen import Screen


def told(monkeypatch: pytest.MonkeyPatch, seen: str) -> list[Path]:
    """Replace the story by claims; return the list that takes the folder it is given."""
    folders: list[Path] = []

    def tell(_screen: Screen, checks: Checks, folder: Path, *, command: Sequence[str], llm: bool) -> None:
        assert (list(command), llm) == (["forefill"], False)
        folders.append(folder)
        for number, what in enumerate(seen.split()):
            checks.equal(f"claim {number}", expected="right", seen=what)

    monkeypatch.setattr(entry, "tell", tell)
    return folders


def meet(checks: Checks, error: Exception) -> None:
    with checks.errors_are_failures():
        raise error


def test_claims_that_hold_end_with_exit_code_0_and_nothing_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = told(monkeypatch, "right right")
    assert entry.show(Screen(), ["forefill"]) == 0
    assert [folder.exists() for folder in folders] == [False]


def test_one_claim_that_fails_ends_with_exit_code_1_and_says_what_was_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = told(monkeypatch, "right wrong right")
    assert entry.show(Screen(), ["forefill"]) == 1
    said = capsys.readouterr().out
    assert "✗ claim 1" in said
    assert "expected: right" in said
    assert "seen:     wrong" in said
    assert "2 of 3 claims held" in said
    assert f"logs are kept in {folders[0]}" in said
    folders[0].rmdir()


def test_a_demo_that_claims_nothing_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    folders = told(monkeypatch, "")
    assert entry.show(Screen(), ["forefill"]) == 1
    folders[0].rmdir()


@pytest.mark.parametrize(
    "error", [CannotGoOn("the run does not end"), httpx.ConnectError("refused"), OSError("no room")], ids=repr
)
def test_what_keeps_the_demo_from_going_on_is_a_claim_that_failed(error: Exception) -> None:
    said: list[Claim] = []
    checks = Checks(said.append)
    meet(checks, error)
    assert [claim.held for claim in said] == [False]
    assert str(error) in said[0].seen
    assert not checks.all_held


def test_an_error_in_the_demo_itself_is_not_hidden() -> None:
    checks = Checks(lambda _claim: None)
    with pytest.raises(KeyError):
        meet(checks, KeyError("bug"))


def test_only_loopback_addresses_are_unreachable_for_others() -> None:
    addresses = {("127.0.0.1", 1), ("::1", 2), ("0.0.0.0", 3), ("::", 4), ("192.0.2.7", 5)}
    assert beyond_loopback(addresses) == ["0.0.0.0:3", "192.0.2.7:5", ":::4"]
