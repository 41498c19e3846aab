"""Several API processes on one port, as real processes: what they share, and how they begin and end."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import text

from api.server_process import ServerProcess
from pipeline.cli.stack.silence import OwnTicks
from pipeline.telemetry.metrics import FOLDER_VARIABLE
from tests.support.lonely_api import LonelyApi
from tests.support.polling import eventually
from tests.support.ports import NO_TLS
from tests.support.processes import Process, Processes, pause
from tests.support.stack import Stack

TWO = {"FOREFILL_API_PROCESSES": "2"}
QUESTIONS = 24
"""All of them reach one of two processes once in eight million times."""


@pytest.fixture
def api(processes: Processes, tmp_path: Path) -> LonelyApi:
    return LonelyApi(processes, tmp_path)


def serving(parent: Process) -> list[int]:
    """Return the processes that serve, as the parent logged last."""
    lines = re.findall(r'^.*"event": "api.serving".*$', parent.log(), re.MULTILINE)
    pids: list[int] = json.loads(lines[-1])["pids"] if lines else []
    return pids


def wait_for_two(parent: Process, *, without: int = 0) -> list[int]:
    parent.wait_until(lambda: len(set(serving(parent)) - {without}) == 2, timeout_s=60)
    return serving(parent)


def listens(pid: int, port: int) -> bool:
    connections = psutil.Process(pid).net_connections(kind="tcp")
    return any(each.status == psutil.CONN_LISTEN and each.laddr.port == port for each in connections)


def test_all_listen_on_one_port_and_sigterm_ends_them(api: LonelyApi, processes: Processes) -> None:
    parent = api.start(**TWO)
    pids = wait_for_two(parent)
    assert parent.pid not in pids
    assert [listens(pid, api.port) for pid in (*pids, parent.pid)] == [True, True, False]
    with httpx.Client(base_url=api.url) as client:
        assert client.get("/healthz").status_code == 200
        assert parent.terminate(timeout_s=10) == 0
    assert processes.alive() == []
    assert parent.log().count("api.stopped") == 2
    assert "Traceback" not in parent.log()


def test_a_killed_one_comes_back_and_the_others_answer_meanwhile_until_ctrl_c(
    api: LonelyApi, processes: Processes
) -> None:
    parent = api.start(**TWO)
    victim, other = wait_for_two(parent)
    psutil.Process(victim).kill()
    eventually(lambda: victim not in serving(parent))
    for _ in range(QUESTIONS):  # each on a connection of its own
        assert httpx.get(f"{api.url}/healthz", verify=NO_TLS).status_code == 200
    assert other in wait_for_two(parent, without=victim)
    parent.send(signal.SIGINT)
    assert parent.wait(timeout_s=10) == 130
    assert processes.alive() == []
    assert "Traceback" not in parent.log()


def test_one_that_stands_still_is_replaced(api: LonelyApi, tmp_path: Path) -> None:
    api.upgrade()
    counts = {FOLDER_VARIABLE: str(tmp_path)}
    server = ServerProcess({**os.environ, **api.environment, **counts, **TWO}, silent_s=3.0)
    ticks = OwnTicks(0.2)

    def serves(*, without: int) -> bool:
        server.count(ticks.tick())
        assert server.tend() is None
        return server.serves and server.pid != without

    server.start()
    try:
        eventually(lambda: serves(without=0), timeout_s=60)
        still = server.pid
        pause(still)
        eventually(lambda: serves(without=still), timeout_s=60)
        assert not psutil.pid_exists(still)
    finally:
        server.stop_before(time.monotonic())


def test_none_outlives_a_killed_parent(api: LonelyApi, processes: Processes) -> None:
    parent = api.start(**TWO)
    wait_for_two(parent)
    parent.kill()
    eventually(lambda: processes.alive() == [])


def test_one_that_cannot_start_ends_all_with_its_reason(api: LonelyApi, processes: Processes) -> None:
    parent = api.start(**TWO)
    victim, _ = wait_for_two(parent)
    with api.database() as database, database.write() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    psutil.Process(victim).kill()
    assert parent.wait(timeout_s=30) == 1
    assert "forefill db upgrade" in parent.log()
    assert processes.alive() == []


def test_a_database_that_is_not_upgraded_is_said_once(api: LonelyApi) -> None:
    parent = api.launch(**TWO)
    line = api.refusal(parent)
    assert "forefill db upgrade" in line


@pytest.mark.parametrize("first", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_port_that_others_serve_is_refused(api: LonelyApi, first: str) -> None:
    api.start(FOREFILL_API_PROCESSES=first)
    second = api.launch(**TWO)
    line = api.refusal(second)
    assert f"cannot listen on 127.0.0.1:{api.port}" in line


@pytest.fixture
def stack(tmp_path: Path, sqlite_url: str) -> Iterator[Stack]:
    with Stack(tmp_path, database_url=sqlite_url, environment=TWO) as stack:
        stack.start_dispatcher()
        stack.start_worker()
        yield stack


def test_numbers_are_those_of_all_processes_whichever_is_asked(stack: Stack, tmp_path: Path) -> None:
    documents = tmp_path / "documents.jsonl"
    documents.write_text("".join(json.dumps({"id": f"d{n}", "text": f"Passage {n}."}) + "\n" for n in range(3)))
    run_id = stack.forefill("ingest", str(documents), "--corpus", "docs", "--json")["run_id"]
    stack.wait_for_run(run_id)
    parent = stack.start_api()
    victim, _ = wait_for_two(parent)

    def ask(method: str, path: str, **options: Any) -> httpx.Response:
        """On a connection of its own, so that any of them may be asked."""
        answer = httpx.request(method, f"{stack.api_url}{path}", verify=NO_TLS, **options)
        assert answer.status_code == 200, answer.text
        return answer

    def said() -> set[tuple[float, ...]]:
        fields = ("hits", "misses", "hit_rate", "errors")
        answers = [ask("GET", "/v1/stats").json() for _ in range(QUESTIONS)]
        return {tuple(answer[field] for field in fields) for answer in answers}

    for _ in range(QUESTIONS):
        ask("POST", "/v1/retrieve", json={"corpus": "docs", "query": "Passage", "top_k": 3})
    assert said() == {(3 * QUESTIONS, 0, 100, 0)}
    assert ask("GET", "/v1/stats").json()["avg_hit_latency_ms"] > 0
    for _ in range(QUESTIONS):
        scraped = ask("GET", "/metrics").text
        assert f"token_cache_hits_total {3 * QUESTIONS}.0" in scraped
        assert "token_cache_hit_rate 100.0" in scraped
        assert 'forefill_coverage{corpus="docs",spec="o200k_base/plain"} 1.0' in scraped
        assert "pid=" not in scraped

    psutil.Process(victim).kill()
    wait_for_two(parent, without=victim)
    assert said() == {(3 * QUESTIONS, 0, 100, 0)}

    ask("POST", "/v1/stats/reset")
    assert said() == {(0, 0, 0, 0)}
    ask("POST", "/v1/retrieve", json={"corpus": "docs", "query": "Passage", "top_k": 3})
    assert said() == {(3, 0, 100, 0)}
