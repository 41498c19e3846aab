"""`forefill up`: the whole embedded stack, its supervisor, and what survives its death."""

import ast
import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.embedded_stack import CORPUS, EmbeddedStack, await_end
from tests.support.polling import eventually
from tests.support.ports import NO_TLS
from tests.support.processes import Processes
from tests.support.sample import DOCUMENTS
from tests.unit.tokenizers.reference import official

README = Path(__file__).parents[2] / "README.md"
QUESTION = "Why are Python strings immutable?"
"""The README's."""

GONE_S = 10.0
"""What SIGTERM may take."""


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedStack]:
    """One stack for the whole module; tests leave it running or stopped."""
    with tempfile.TemporaryDirectory(prefix="ff-up-") as name, Processes(Path(name)) as processes:
        yield EmbeddedStack(processes, Path(name) / "data")


@pytest.fixture
def up(shared: EmbeddedStack) -> EmbeddedStack:
    """The shared stack, running, with a document."""
    if not shared.ready:
        shared.start()
        shared.put_and_wait("kept", "The lighthouse of Alexandria was built of limestone.")
    shared.ensure_running()
    return shared


def test_the_ready_line_names_every_address_and_process(up: EmbeddedStack) -> None:
    up.ensure_as_started()  # a test that kills processes may have come first
    assert up.running.output().count("\n") == 1
    assert up.ready["ready"] is True
    assert up.ready["pids"]["supervisor"] == up.running.pid
    parents = {name: psutil.Process(pid).ppid() for name, pid in up.pids().items()}
    assert parents == dict.fromkeys(
        ("broker", "cache", "qdrant", "api", "interactive", "bulk", "dispatcher", "beat", "flower"), up.running.pid
    )
    assert up.get("/readyz")["degraded"] == []
    assert up.ready["database"] == f"sqlite:///{up.folder / 'forefill.db'}"
    for url in up.ready["metrics"]:
        assert httpx.get(url, trust_env=False).status_code == httpx.codes.OK


def test_everything_listens_on_loopback_only(up: EmbeddedStack) -> None:
    listening = [
        connection.laddr.ip
        for process in up.everything()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert set(listening) == {"127.0.0.1"}
    assert len(listening) >= len(("broker", "cache", "qdrant", "api", "flower", "metrics", "metrics"))


def test_secrets_are_private_and_in_no_argument_or_log(up: EmbeddedStack) -> None:
    secrets = re.findall(r"[0-9a-f]{48}", (up.folder / "forefill.env").read_text())
    secrets.append(Path(up.ready["flower_auth_file"]).read_text().strip().partition(":")[2])
    assert len(set(secrets)) == len(("broker", "cache", "qdrant", "entries", "flower"))
    arguments = [" ".join(process.cmdline()) for process in up.everything()]
    logs = [log.read_text() for log in (up.folder / "logs").iterdir()]
    assert not [secret for secret in secrets if any(secret in text for text in [*arguments, *logs])]
    open_to_others = [path for path in up.folder.rglob("*") if stat.S_IMODE(path.lstat().st_mode) & 0o077]
    assert open_to_others == []


def test_the_readmes_python_runs_in_the_folder_beside_the_stack(up: EmbeddedStack, tmp_path: Path) -> None:
    text = "Why are Python strings immutable? There are several advantages."
    up.put_and_wait("faq", text, corpus="python-docs")
    (block,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "data").symlink_to(up.folder)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOREFILL_")}
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, env=clean, capture_output=True, text=True, timeout=180, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    first, *passages, stats = done.stdout.splitlines()
    whole = f"Answer the question using the documents below.\n\nDocument 1\n{text}\n\nQuestion: {QUESTION}\n\nAnswer:"
    assert first == f"{len(official('o200k_base').encode_ordinary(whole))} token ids, from the cache: True"
    assert [line.split()[1] for line in passages] == ["faq"]
    assert ast.literal_eval(stats)["total_tokens_cached"] > 0


def test_documents_are_ingested_asked_for_edited_and_asked_for_again(up: EmbeddedStack) -> None:
    run = up.forefill("ingest", str(DOCUMENTS), "--corpus", CORPUS, "--wait")
    assert run["state"] == "succeeded"
    up.put_and_wait("tower", "The Eiffel tower is 330 metres high.")
    assert "330 metres" in up.retrieve("How high is the Eiffel tower?")["prompt_text"]
    up.put_and_wait("tower", "The Eiffel tower is 331 metres high.")
    answer = up.retrieve("How high is the Eiffel tower?")
    assert "331 metres" in answer["prompt_text"]
    assert "330 metres" not in answer["prompt_text"]
    assert answer["metadata"]["cache_hit"]


def test_workers_export_what_their_children_count(up: EmbeddedStack) -> None:
    def served() -> float:
        page = "".join(httpx.get(url, trust_env=False).text for url in up.ready["metrics"][1:])
        return sum(float(value) for value in re.findall(r"^forefill_fill_lag_seconds_count (\S+)$", page, re.MULTILINE))

    before = served()
    up.put_and_wait("counted", f"This text was written at {time.time()}.")
    assert served() == before + 1


def test_flower_asks_for_a_login_and_shows_workers_queues_and_tasks(up: EmbeddedStack) -> None:
    url = up.ready["flower"]
    user, _, password = Path(up.ready["flower_auth_file"]).read_text().strip().partition(":")
    for path in ("/", "/api/workers", "/api/tasks"):
        assert httpx.get(url + path, trust_env=False).status_code == httpx.codes.UNAUTHORIZED
    with httpx.Client(base_url=url, auth=(user, password), trust_env=False, timeout=10) as flower:
        assert flower.get("/").status_code == httpx.codes.OK
        workers = flower.get("/api/workers", params={"refresh": "1"}).json()
        queues = {
            name.partition("@")[0]: [each["name"] for each in of["active_queues"]] for name, of in workers.items()
        }
        assert queues == {"interactive": ["interactive"], "bulk": ["bulk", "maintenance"]}
        up.put_and_wait("watched", f"Flower saw this at {time.time()}.")
        eventually(lambda: _has_run(flower), describe="a task of the interactive worker")
        (worker,) = (name for name in workers if name.startswith("interactive@"))
        assert flower.post(f"/api/worker/shutdown/{worker}").status_code == httpx.codes.FORBIDDEN


def _has_run(flower: httpx.Client) -> bool:
    tasks = flower.get("/api/tasks", params={"state": "SUCCESS"}).json().values()
    jobs = [task for task in tasks if task["name"] == "forefill.run_job" and task["routing_key"] == "interactive"]
    return any(re.fullmatch(r"job \d+", task["args"]) and task["worker"].startswith("interactive@") for task in jobs)


@pytest.mark.parametrize("names", ["broker cache", "api qdrant", "interactive bulk dispatcher", "beat flower"])
def test_killed_processes_come_back(up: EmbeddedStack, names: str) -> None:
    """Several at once; `test_each_killed_process_comes_back` takes each alone."""
    _kill_and_recover(up, names.split())


@pytest.mark.long
@pytest.mark.parametrize(
    "name", ["broker", "cache", "qdrant", "api", "interactive", "bulk", "dispatcher", "beat", "flower"]
)
def test_each_killed_process_comes_back(up: EmbeddedStack, name: str) -> None:
    _kill_and_recover(up, [name])


def _kill_and_recover(up: EmbeddedStack, names: list[str]) -> None:
    victims = [up.find(name) for name in names]
    doomed = [*victims, *(child for victim in victims for child in victim.children(recursive=True))]
    for victim in victims:
        victim.kill()
    await_end(doomed, timeout_s=5)
    text = f"After the death of {names} it was {time.time()}."
    up.put_and_wait("survivor", text)
    up.serves(text, query=f"death of {names}")
    eventually(
        lambda: all(up.find(name).is_running() and _answers(up, name) for name in names),
        timeout_s=45,
        describe=lambda: f"new processes for {names}: {up.running.log()}",
        tolerate=(LookupError, psutil.NoSuchProcess, httpx.HTTPError),
    )


def _answers(up: EmbeddedStack, name: str) -> bool:
    """Whether a new process serves, for those that a document's way through the stack does not show."""
    _, interactive, bulk = up.ready["metrics"]
    urls = {"flower": f"{up.ready['flower']}/healthcheck", "interactive": interactive, "bulk": bulk}
    return name not in urls or httpx.get(urls[name], trust_env=False, verify=NO_TLS).status_code == httpx.codes.OK


def test_a_signal_during_the_start_ends_it_too(up: EmbeddedStack) -> None:
    other = EmbeddedStack(up.processes, up.folder.with_name("early"))
    process = other.launch()
    process.wait_for_output("^starting in ")
    assert process.terminate(timeout_s=GONE_S) == 0
    assert process.output() == ""
    assert not (other.folder / "up.lock").exists()


def test_a_second_one_on_the_same_folder_is_refused(up: EmbeddedStack) -> None:
    before = sorted(up.folder.iterdir())
    done = up.processes.run_forefill("up", "--data-dir", str(up.folder), "--port", "0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"forefill: {up.folder} is in use: another `forefill up` runs on it\n"
    assert sorted(up.folder.iterdir()) == before
    assert up.get("/readyz")["ready"]


def test_a_taken_port_is_named_and_nothing_is_left(up: EmbeddedStack) -> None:
    port = up.ready["api"].rpartition(":")[2]
    other = up.folder.with_name("other")
    done = up.processes.run_forefill("up", "--data-dir", str(other), "--port", port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"forefill: port {port} for the API is taken: choose another one with --port\n"
    assert not other.exists()


def test_a_supervisor_killed_with_sigkill_leaves_nothing_and_the_next_one_continues(up: EmbeddedStack) -> None:
    victims = up.everything()
    run_id = up.put("late", "The tide came in at seven.")
    up.running.kill()
    await_end(victims, timeout_s=5)
    up.start()
    eventually(lambda: up.get(f"/v1/runs/{run_id}")["state"] == "succeeded", timeout_s=45, describe="the run's end")
    up.serves("The tide came in at seven.", query="When did the tide come in?")
    up.serves("limestone", query="What was the lighthouse of Alexandria built of?")


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_ends_everything_within_ten_seconds(up: EmbeddedStack, signal_number: signal.Signals) -> None:
    victims = up.everything()
    up.forefill("ingest", str(DOCUMENTS), "--corpus", f"busy-{signal_number.name.lower()}")
    began = time.monotonic()
    up.running.send(signal_number)
    assert up.running.wait(timeout_s=GONE_S + 5) == 0, up.running.tail()
    assert time.monotonic() - began < GONE_S
    await_end(victims, timeout_s=0.5)
    assert up.processes.alive() == []
    assert not [path for path in up.folder.rglob("*") if path.name == "up.lock" or path.is_socket()]
