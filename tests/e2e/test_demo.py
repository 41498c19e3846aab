"""`make demo` as a user runs it, and what it does when something it claims does not hold."""

import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.__main__ import show
from demo.screen import Screen
from tests.support.polling import eventually
from tests.support.processes import Process, Processes

ROOT = Path(__file__).parents[2]

ROWS = (
    r"coverage +100\.0% +\d[\d,]* passages of 659 documents under o200k_base/plain",
    r"hit rate +100\.0% +100\.0% +120 passages looked up and found, 0 missed",
    r"relevant document found +\d+ of 12",
    *(rf"{part} +\d+\.\d{{3}} +\d+\.\d{{3}} +ms" for part in ("embed", "search", "cache", "tokenize", "assemble")),
    r"whole query +\d+\.\d{3} +\d+\.\d{3} +ms",
    r"ids from Forefill +\d+\.\d{3} +\d+\.\d{3} +ms",
    r"tiktoken [\d.]+ +\d+\.\d{3} +\d+\.\d{3} +ms.* same ids",
    r"gigatoken( [\d.]+ +\d+\.\d{3} +\d+\.\d{3} +ms.* same ids| +- +- +not measured)",
)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    with Processes(tmp_path) as started:
        yield started


def start_demo(processes: Processes) -> Process:
    return processes.start([sys.executable, "-m", "demo"], name="demo", cwd=ROOT)


@pytest.mark.long  # `make demo` is the same
def test_the_demo_holds_what_it_claims_and_leaves_nothing_behind(processes: Processes) -> None:
    demo = start_demo(processes)
    assert demo.wait(timeout_s=170) == 0, demo.tail()
    said = demo.output()
    for row in ROWS:
        assert re.search(rf"^ *{row}", said, re.MULTILINE), f"{row}\n{said}"
    assert "✗" not in said
    claims = re.search(r"^(\d+) of (\d+) claims held", said, re.MULTILINE)
    assert claims is not None
    assert claims[1] == claims[2] == str(said.count("✓"))
    assert re.search(r"SIGKILL to worker \d+ of the ready line with [1-9]\d* of 658 documents done", said)
    assert re.search(
        r"Flower at http://127\.0\.0\.1:\d+ answers with a login .* bulk and interactive alive; without one 401", said
    )
    assert not list(processes.alive())
    assert not Path(_folder(said)).exists()


@pytest.mark.long
def test_a_demo_that_is_told_to_end_stops_everything(processes: Processes) -> None:
    demo = start_demo(processes)
    demo.wait_for_output("ready after", timeout_s=90)
    demo.send(signal.SIGTERM)
    assert demo.wait(timeout_s=60) == 128 + signal.SIGTERM
    eventually(lambda: not processes.alive(), describe="the end of everything that the demo started")


def test_a_stack_that_does_not_start_and_leaves_a_process_fails_both_claims(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # its logs are kept
    forefill = tmp_path / "forefill"
    forefill.write_text("#!/bin/sh\nsleep 600 > /dev/null 2>&1 &\necho there is no room >&2\nexit 3\n")
    forefill.chmod(0o755)
    assert show(Screen(), [str(forefill)]) == 1
    said = capfd.readouterr().out
    assert "`forefill up` ended with exit code 3: there is no room" in said
    assert re.search(r"✗ no process that was started here is left\n +expected: \[\]\n +seen: +\['\d+ sleep'\]", said)
    assert "0 of 3 claims held" in said


def _folder(said: str) -> str:
    found = re.search(r"--data-dir (\S+)/data", said)
    assert found is not None
    return found[1]
