"""SIGTERM and SIGINT while a process starts: it ends at once and shows no traceback, whatever it is loading."""

import signal
import sys
from pathlib import Path

import pytest

from tests.support.lonely_api import LonelyApi
from tests.support.polling import eventually
from tests.support.processes import Process, Processes, forefill_command

ROOT = Path(__file__).parents[2]
ENDS_S = 5.0
PROCESSES = {
    "api": ["api"],
    "one of several": ["api.serving", "1"],
    "worker": ["workers", "worker", "-Q", "bulk", "-c", "1"],
    "dispatcher": ["workers.dispatcher"],
    "beat": ["workers", "beat", "--pidfile="],
    "flower": ["workers", "flower"],
    "qdrant": ["pipeline.retrieval.owner", "--port", "0"],
    "demo": ["demo"],
}


@pytest.mark.parametrize("command", ["doctor", "ingest", "up"])
def test_ctrl_c_while_a_command_is_loaded_prints_nothing(processes: Processes, tmp_path: Path, command: str) -> None:
    process = processes.start([*forefill_command(), command], name=command, cwd=tmp_path)
    _await_library(process, "pydantic_core")
    assert _end(process, signal.SIGINT) == -signal.SIGINT
    assert (process.output(), process.log()) == ("", "")


@pytest.mark.parametrize("name", PROCESSES)
def test_ctrl_c_while_a_process_is_loaded_prints_nothing(processes: Processes, name: str) -> None:
    process = processes.start([sys.executable, "-P", "-m", *PROCESSES[name]], name="process", cwd=ROOT)
    _await_library(process, "_psutil" if name == "demo" else "pydantic_core")
    assert _end(process, signal.SIGINT) == -signal.SIGINT
    assert (process.output(), process.log()) == ("", "")


@pytest.mark.parametrize(
    "library",
    ["httptools", *(pytest.param(each, marks=pytest.mark.long) for each in ("pydantic_core", "tokenizers", "uvloop"))],
)
def test_sigterm_while_the_api_starts_ends_it(processes: Processes, tmp_path: Path, library: str) -> None:
    api = LonelyApi(processes, tmp_path)
    api.upgrade()
    process = api.launch()
    _await_library(process, library)
    assert _end(process, signal.SIGTERM) in (-signal.SIGTERM, 0)
    assert "Traceback" not in process.log()


def _await_library(process: Process, name: str) -> None:
    """Wait until a process has loaded a compiled library: it is in the middle of its imports then."""
    maps = Path(f"/proc/{process.pid}/maps")
    eventually(lambda: name in maps.read_text(), timeout_s=60, describe=lambda: f"{name} in {process.tail()}")


def _end(process: Process, number: int) -> int:
    process.send(number)
    return process.wait(timeout_s=ENDS_S)
