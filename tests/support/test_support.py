"""The test support itself: servers come back, processes leave nothing behind."""

import signal
import sys
import threading
import time
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from tests.support.packages import package_folder
from tests.support.polling import DeadlineExceededError, eventually
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, Processes, has_ended
from tests.support.valkey import ValkeyServer

_ORPHAN_MAKER = (
    "import subprocess, sys, time;"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True);"
    "print('started', flush=True); time.sleep(600)"
)
_TEST_RUN = (
    "import pathlib, sys, time; from tests.support.processes import Processes;"
    "print(Processes(pathlib.Path(sys.argv[1])).start(['sleep', '600']).pid, flush=True); time.sleep(600)"
)


def test_eventually_returns_the_first_truthy_value_and_names_what_it_awaited() -> None:
    values = iter([0, "", 7])
    assert eventually(lambda: next(values)) == 7
    with pytest.raises(DeadlineExceededError, match="the moon did not become true"):
        eventually(lambda: None, timeout_s=0.02, describe="the moon")


def test_valkey_comes_back_empty_on_the_same_port_after_a_kill(cache_server: ValkeyServer) -> None:
    with cache_server.client() as client:
        client.set("k", "v")
        port = cache_server.port
        cache_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("k")
        cache_server.start()
        assert cache_server.port == port
        assert client.get("k") is None


def test_valkey_with_append_only_file_keeps_its_data_over_a_stop() -> None:
    with ValkeyServer(append_only=True) as server, server.client() as client:
        client.set("k", "v")
        server.stop()
        server.start()
        assert client.get("k") == b"v"


def test_postgres_gives_every_test_an_empty_database(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        version = connection.execute("SHOW server_version").fetchone()
        assert version is not None
        assert version[0].startswith("18")
        connection.execute("CREATE TABLE t (a int)")
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert tables == (1,)


def test_postgres_recovers_from_a_crash_with_its_data() -> None:
    with PostgresServer() as server:
        name = server.create_database()
        server.kill()
        server.start()
        with psycopg.connect(server.url(name).replace("+psycopg", "")) as connection:
            assert connection.execute("SELECT current_database()").fetchone() == (name,)


def test_what_a_process_started_in_another_session_is_ended_with_it(processes: Processes) -> None:
    process = processes.start([sys.executable, "-c", _ORPHAN_MAKER])
    process.wait_for_output("started")
    (orphan,) = process.children()
    process.kill()
    assert orphan.is_running()
    assert [found.pid for found in processes.alive()] == [orphan.pid]
    processes.kill_everything()
    assert processes.alive() == []


def test_a_process_ends_when_the_test_run_is_killed(processes: Processes, tmp_path: Path) -> None:
    runner = processes.start([sys.executable, "-c", _TEST_RUN, tmp_path], name="runner")
    sleeper = psutil.Process(int(runner.wait_for_output(r"^(\d+)$").group(1)))
    runner.kill()
    eventually(lambda: has_ended(sleeper), describe="the end of what the killed run had started")


def test_a_process_outlives_the_thread_that_asked_for_it(processes: Processes) -> None:
    started: list[Process] = []
    thread = threading.Thread(target=lambda: started.append(processes.start(["sleep", "600"])))
    thread.start()
    thread.join()
    with pytest.raises(AssertionError, match="still running"):
        started[0].wait(timeout_s=0.2)


def test_a_paused_process_stands_still_until_it_is_resumed(processes: Processes) -> None:
    process = processes.start([sys.executable, "-c", "import signal; print('up', flush=True); signal.pause()"])
    process.wait_for_output("up")
    process.pause()
    process.send(signal.SIGTERM)
    assert process.is_running
    process.resume()
    assert process.wait() == -signal.SIGTERM


def test_waiting_for_a_process_that_died_fails_at_once_with_its_log(processes: Processes) -> None:
    process = processes.start([sys.executable, "-c", "raise SystemExit('no licence')"])
    began = time.monotonic()
    with pytest.raises(AssertionError, match="no licence"):
        process.wait_until(lambda: False, timeout_s=60)
    assert time.monotonic() - began < 10


def test_a_missing_package_skips_on_a_laptop_and_fails_on_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        package_folder("no_such_package")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="not installed"):
        package_folder("no_such_package")


def test_postgres_runs_from_a_copy_where_its_package_is_closed_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.postgres._open_to_everyone", lambda _: False)
    with PostgresServer() as server, psycopg.connect(server.url().replace("+psycopg", "")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
