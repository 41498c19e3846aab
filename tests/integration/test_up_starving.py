"""Starving is not dying: who has no processor, or stood still with the machine, is left alone; a wedge is not."""

import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support.burners import burners
from tests.support.polling import eventually
from tests.support.ports import free_port
from tests.support.processes import Process, Processes, pause

SILENT_S = 1.0
ONE_CPU = {0}


@pytest.fixture
def stack(processes: Processes, tmp_path: Path) -> Process:
    ports = [str(free_port()) for _ in range(2)]
    command = [sys.executable, "-m", "tests.support.small_stack", str(tmp_path), str(SILENT_S), *ports]
    started = processes.start(command, name="small-stack", cwd=Path(__file__).parents[2])
    started.wait_for_json("pids", timeout_s=60)
    return started


def test_a_machine_that_stood_still_restarts_nothing(stack: Process, processes: Processes) -> None:
    before = _pids(stack)
    stack.pause_all()
    _let_pass(2.5 * SILENT_S)
    with burners(processes, 8, cpus=ONE_CPU):
        for pid in [stack.pid, *before]:
            psutil.Process(pid).cpu_affinity(list(ONE_CPU))
        stack.resume_all()
        _let_pass(2.5 * SILENT_S)
        assert (_pids(stack), _said(stack)) == (before, 0)


def test_a_starved_process_is_left_alone(stack: Process, processes: Processes) -> None:
    victim, *_ = before = _pids(stack)
    with burners(processes, 4, cpus=ONE_CPU):
        starved = psutil.Process(victim)
        starved.cpu_affinity(list(ONE_CPU))
        starved.nice(19)
        starved.send_signal(signal.SIGUSR2)  # computes for half a second of its own before it answers
        _let_pass(4 * SILENT_S)
        assert (_pids(stack), _said(stack)) == (before, 0)


@pytest.mark.parametrize("wedge", ["stopped alone", "deadlocked"])
def test_a_wedged_process_is_replaced_beside_others_that_burn(stack: Process, processes: Processes, wedge: str) -> None:
    victim, other = _pids(stack)
    with burners(processes, 4, cpus=ONE_CPU):
        if wedge == "deadlocked":
            psutil.Process(victim).send_signal(signal.SIGUSR1)
        else:
            pause(victim)
        eventually(lambda: _said(stack) == 1, timeout_s=30, describe=stack.tail)
    eventually(lambda: len(_pids(stack)) == 2, timeout_s=20, describe="a new process")
    assert victim not in _pids(stack)
    assert other in _pids(stack)
    _let_pass(SILENT_S / 2)  # its successor is not held to its silence
    assert (_said(stack), stack.output().count("does not answer and was ended")) == (1, 1)


def _pids(stack: Process) -> list[int]:
    return [child.pid for child in stack.children()]


def _said(stack: Process) -> int:
    return stack.output().count('"said"')


def _let_pass(seconds: float) -> None:
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > seconds, timeout_s=60)
