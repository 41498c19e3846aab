"""`forefill up` with several API processes: what its ready line says of them, and that they end with it."""

from pathlib import Path

import httpx
import psutil

from tests.support.processes import Processes, forefill_command


def test_the_ready_line_names_all_that_serve_and_a_stop_leaves_none(processes: Processes, tmp_path: Path) -> None:
    command: list[str | Path] = [
        *forefill_command(),
        "up",
        "--data-dir",
        tmp_path / "data",
        "--port",
        "0",
        "--workers",
        "1",
    ]
    up = processes.start([*command, "--api-processes", "2"], name="up", cwd=tmp_path)
    ready = up.wait_for_json("ready", timeout_s=120)
    first, second = (psutil.Process(pid) for pid in ready["pids"]["api"])
    assert "api.serving" in first.cmdline()
    assert first.ppid() == second.ppid() != ready["pids"]["supervisor"]
    assert httpx.get(f"{ready['api']}/v1/stats").json()["hits"] == 0
    assert up.terminate(timeout_s=10) == 0
    assert processes.alive() == []
