"""`forefill up` beside eight others that want the processor, and after its whole machine stood still."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli.stack.supervisor import SILENT_S
from tests.support.burners import burners
from tests.support.embedded_stack import EmbeddedStack
from tests.support.polling import eventually
from tests.support.processes import Processes, pause

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
BURNERS = 4 * (os.cpu_count() or 2)


@pytest.fixture(scope="module")
def up() -> Iterator[EmbeddedStack]:
    with tempfile.TemporaryDirectory(prefix="ff-up-") as name, Processes(Path(name)) as processes:
        stack = EmbeddedStack(processes, Path(name) / "data")
        stack.start()
        stack.put_and_wait("kept", "The lighthouse of Alexandria was built of limestone.")
        yield stack


def test_eight_that_burn_restart_nothing_while_documents_are_written_and_asked_for(up: EmbeddedStack) -> None:
    before = up.pids()
    with burners(up.processes, BURNERS):
        began = time.monotonic()
        while time.monotonic() - began < 2 * SILENT_S:
            up.put("busy", f"Written beside others at {time.monotonic()}.")
            up.forefill("status")
        assert _now(up) == before
    assert "was ended" not in up.running.log()


def test_a_machine_that_stood_still_longer_than_any_limit_restarts_nothing(up: EmbeddedStack) -> None:
    before = up.pids()
    up.running.pause_all()
    _let_pass(SILENT_S + 5)
    with burners(up.processes, BURNERS):
        up.running.resume_all()
        _let_pass(1.5 * SILENT_S)
        assert _now(up) == before
    assert "was ended" not in up.running.log()
    up.serves("limestone", query="What was the lighthouse of Alexandria built of?")


def test_one_that_is_stopped_alone_is_replaced(up: EmbeddedStack) -> None:
    victim = up.find("dispatcher").pid
    pause(victim)
    eventually(
        lambda: up.find("dispatcher").pid != victim,
        timeout_s=5 * SILENT_S,
        tolerate=(LookupError,),
        describe="a new one",
    )
    assert "dispatcher does not answer and was ended" in up.running.log()


def _now(up: EmbeddedStack) -> dict[str, int]:
    return {name: up.find(name).pid for name in up.pids()}


def _let_pass(seconds: float) -> None:
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > seconds, timeout_s=seconds + 60)
