"""The other commands as processes: on a whole stack whose worker and dispatcher are `forefill`'s own, and on none."""

import json
import os
import pty
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.cli.following import stall_hints
from pipeline.jobs.run_reports import get_run
from pipeline.jobs.runs import bury_items, settle
from tests.support.commands import Commands, interrupt, json_lines, numbered
from tests.support.polling import eventually
from tests.support.processes import forefill_command
from tests.support.stack import Stack


@pytest.fixture
def stack(sqlite_url: str) -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="ff-cli-") as folder, Stack(Path(folder), database_url=sqlite_url) as made:
        yield made


def test_documents_are_served_explained_and_deleted_by_commands_alone(stack: Stack, tmp_path: Path) -> None:
    commands = Commands(tmp_path, stack.environment)
    worker = stack.processes.start_forefill("worker", "--concurrency", "1", env=stack.environment)
    dispatcher = stack.processes.start_forefill("dispatcher", env=stack.environment)
    worker.wait_for_output(r"ready\.", timeout_s=60)

    documents = [{"id": f"doc/{n}", "text": f"Number {n} is about {word}."} for n, word in enumerate(("tea", "rain"))]
    ingested = commands.answer("ingest", "-", "--corpus", "docs", "--wait", stdin=json_lines(documents))
    assert (ingested["accepted"], ingested["state"], ingested["totals"]["done"]) == (2, "succeeded", 2)

    found = commands.answer(
        "retrieve", "Which one is about rain?", "--corpus", "docs", "--top-k", "1", "--include-text"
    )
    assert [(p["document_id"], p["source"]) for p in found["passages"]] == [("doc/1", "l2")]
    assert "Number 1 is about rain." in found["prompt_text"]

    explained = commands.answer("explain", "--corpus", "docs", "doc/1")
    assert explained["asked_cache"]
    assert [passage["cached"] for passage in explained["passages"]] == [True]
    assert "nothing" in explained["next"]

    diagnosis = commands.answer("doctor")
    assert diagnosis["sound"], diagnosis
    status = commands.answer("status")
    assert status["coverage"] == {"docs": {"o200k_base/plain": 1.0}}
    assert status["corpora"]["docs"]["served"] == 2
    assert [entry["concurrency"] for entry in status["workers"]] == [1]

    deleted = commands.answer("delete", "--corpus", "docs", "-", "--wait", stdin=b"doc/1\nnothing\n")
    assert (deleted["accepted"], deleted["unknown"], deleted["state"]) == (1, 1, "succeeded")
    after = commands.answer("retrieve", "Which one is about rain?", "--corpus", "docs")
    assert [passage["document_id"] for passage in after["passages"]] == ["doc/0"]
    assert commands.answer("explain", "--corpus", "docs", "doc/1")["state"] == "deleted"

    assert worker.terminate() == 0, worker.tail()
    assert dispatcher.terminate() == 0, dispatcher.tail()


def test_a_run_with_a_dead_document_ends_with_exit_code_1_and_says_which(commands: Commands) -> None:
    run_id = commands.answer("ingest", "-", "--corpus", "docs", stdin=json_lines(numbered(1)))["run_id"]
    database = commands.open_database()
    with commands.start("runs", "watch", run_id, "--json") as process:
        assert process.stdout is not None
        process.stdout.readline()
        with database.write() as connection:
            bury_items(connection, 1, stage="embed", error="no vectors", attempts=3)
        settle(database, [run_id])
        streamed, errors = process.communicate(timeout=30)
    database.close()
    assert process.returncode == 1
    assert json.loads(streamed.splitlines()[-1])["state"] == "partial"
    assert f"forefill runs errors {run_id}" in errors.decode()
    (dead,) = commands.answer("runs", "errors", run_id)["errors"]
    assert (dead["document_id"], dead["stage"], dead["error"], dead["attempts"]) == (
        "doc-000000",
        "embed",
        "no vectors",
        3,
    )


def test_a_run_is_watched_line_by_line(commands: Commands) -> None:
    run_id = commands.answer("ingest", "-", "--corpus", "docs", stdin=json_lines(numbered(3)))["run_id"]
    listed = commands.answer("runs", "ls", "--corpus", "docs", "--unfinished")["runs"]
    assert [run["id"] for run in listed] == [run_id]
    assert commands.answer("runs", "show", run_id)["totals"]["pending"] == 3
    assert commands.answer("runs", "errors", run_id) == {"errors": [], "next": None}
    with commands.start("runs", "watch", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["id"] == run_id
        code, errors = interrupt(process)
    assert code == 130
    assert f"run {run_id} goes on" in errors


def test_waiting_without_a_worker_says_what_to_start(commands: Commands) -> None:
    run_id = commands.answer("ingest", "-", "--corpus", "docs", stdin=json_lines(numbered(3)))["run_id"]
    with closing(commands.open_database()) as database:
        with database.read() as connection:
            report = get_run(connection, run_id)
        assert stall_hints(database, report) == [
            "no worker consumes queue interactive: start `forefill worker`",
            "no dispatcher tells workers of pending jobs: start `forefill dispatcher`",
        ]
    done = commands.run("explain", "--corpus", "docs", "doc-000001")
    assert "start `forefill worker`" in done.stdout
    diagnosis = commands.answer("doctor", code=1)
    failed = {finding["subject"]: finding["remedy"] for finding in diagnosis["findings"] if finding["level"] == "fail"}
    assert failed.keys() == {"qdrant", "dispatcher", "queue interactive", "queue bulk", "queue maintenance"}
    assert failed["queue interactive"] == "start `forefill worker --queues interactive`"


def test_one_server_for_broker_and_cache_is_no_sound_deployment(commands: Commands) -> None:
    commands.environment["FOREFILL_CACHE_URL"] = commands.environment["FOREFILL_BROKER_URL"]
    findings = commands.answer("doctor", code=1)["findings"]
    assert "broker and cache" in {finding["subject"] for finding in findings if finding["level"] == "fail"}


def test_corpora_are_made_changed_and_removed(commands: Commands) -> None:
    made = commands.answer("corpus", "create", "docs", "--schedule", "0 3 * * *", "--timezone", "Europe/Berlin")
    assert (made["spec"], made["schedule"], made["timezone"]) == ("o200k_base/plain", "0 3 * * *", "Europe/Berlin")
    assert commands.run("corpus", "create", "docs").returncode == 1
    assert commands.answer("corpus", "set", "docs", "--schedule", "")["schedule"] is None
    asked = commands.run("corpus", "rm", "docs", stdin=b"n\n")
    assert (asked.returncode, "Remove corpus docs" in asked.stderr) == (1, True)
    assert commands.run("corpus", "rm", "docs", stdin=b"y\n").returncode == 0
    assert commands.answer("corpus", "ls")["corpora"] == []
    assert commands.run("corpus", "rm", "docs", "--yes").returncode == 1


def test_a_data_directory_is_named_before_or_after_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "forefill.env").write_text(f"FOREFILL_DATABASE_URL=sqlite:///{folder / 'mine.db'}\n")
    elsewhere = Commands(tmp_path, {})
    assert elsewhere.run("db", "upgrade", "--data-dir", str(folder)).returncode == 0
    assert (folder / "mine.db").exists()
    for arguments in (["--data-dir", str(folder), "runs", "ls"], ["runs", "ls", "--data-dir", str(folder)]):
        assert elsewhere.answer(*arguments) == {"runs": [], "next": None}
    wrong = elsewhere.run("runs", "ls", "--data-dir", str(tmp_path))
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (["runs", "ls"], {"FOREFILL_DATABASE_URL": "sqlite:///nowhere.db"}, "forefill db upgrade"),
        (["runs", "ls"], {"FOREFILL_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "unreachable"),
        (["worker"], {"FOREFILL_DATABASE_URL": "sqlite:///nowhere.db"}, "forefill db upgrade"),
        (["status"], {"FOREFILL_API_PORT": "many"}, "FOREFILL_API_PORT"),
        (["retrieve", "why", "--corpus", "nothing"], {}, "there is no corpus 'nothing'"),
        (["delete", "--corpus", "nothing", "x"], {}, "there is no corpus 'nothing'"),
    ],
)
def test_a_users_mistake_is_one_sentence(
    commands: Commands, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    done = commands.run(*arguments, env=environment)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("forefill: ")
    assert said in line
    assert not (commands.folder / "nowhere.db").exists()


def test_a_terminal_gets_a_progress_bar(commands: Commands) -> None:
    master, terminal = pty.openpty()
    with subprocess.Popen(
        [*forefill_command(), "ingest", "-", "--corpus", "docs"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env={**os.environ, **commands.environment, "TERM": "xterm"},
    ) as process:
        os.close(terminal)
        assert process.stdin is not None
        process.stdin.write(json_lines(numbered(1000)))
        process.stdin.flush()
        seen = b""

        def bar_is_drawn() -> bool:
            nonlocal seen
            seen += os.read(master, 4096)
            return b"ingesting" in seen and b"\x1b[" in seen

        eventually(bar_is_drawn, timeout_s=30)
        process.send_signal(signal.SIGKILL)
    os.close(master)
