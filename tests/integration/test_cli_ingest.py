"""`forefill ingest` as a process: what it accepts, refuses, reports and survives."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from pipeline.cli.feeding import OpenRun
from pipeline.cli.output import Output
from pipeline.cli.patience import patiently
from pipeline.database import Database
from pipeline.factory import open_ingestion
from pipeline.settings import Settings
from tests.support import sample
from tests.support.commands import Commands, interrupt, json_lines, numbered
from tests.support.polling import eventually


@pytest.fixture
def database(commands: Commands) -> Iterator[Database]:
    made = commands.open_database()
    yield made
    made.close()


def count(database: Database, statement: str) -> int:
    with database.read() as connection:
        return int(connection.execute(text(statement)).scalar_one())


def test_the_sample_is_accepted_and_costs_nothing_the_second_time(commands: Commands, database: Database) -> None:
    first = commands.answer("ingest", str(sample.DOCUMENTS), "--corpus", "docs")
    assert (first["accepted"], first["unchanged"], first["broken"], first["repeated"]) == (659, 0, 0, 0)
    assert {document["id"] for document in first["documents"]} == {d["id"] for d in sample.documents()}
    assert len(first["documents"]) == 659
    assert {(d["generation"], d["status"]) for d in first["documents"]} == {(1, "accepted")}
    jobs = count(database, "SELECT count(*) FROM jobs")

    again = commands.answer("ingest", str(sample.DOCUMENTS), "--corpus", "docs")
    assert (again["accepted"], again["unchanged"]) == (0, 659)
    assert {(d["generation"], d["status"]) for d in again["documents"]} == {(1, "unchanged")}
    assert again["seconds"] < 2
    assert count(database, "SELECT count(*) FROM jobs") == jobs
    assert count(database, "SELECT count(*) FROM runs WHERE NOT sealed") == 0


def test_broken_lines_are_named_and_the_rest_is_ingested(commands: Commands, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'{"id":"a","text":"x"}\nnonsense\n\n{"id":"","text":"y"}\n{"id":"b","text":"z","lang":"en"}\n')
    done = commands.run("ingest", str(path), "--corpus", "docs")
    assert done.returncode == 1
    assert "2 accepted, 0 unchanged, 2 broken" in done.stdout
    assert f"{path}:2: is not JSON" in done.stderr
    assert f"{path}:4: document id" in done.stderr
    assert "'lang'" in done.stderr


def test_strict_refuses_everything_beforehand(commands: Commands, database: Database, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    good.write_bytes(json_lines(numbered(600)))
    bad.write_bytes(b"{}\n")
    cases: list[tuple[list[str], bytes]] = [
        ([str(good), str(bad)], b""),
        (["-"], json_lines(numbered(600)) + b"{}\n"),
    ]
    for arguments, stdin in cases:
        done = commands.run("ingest", *arguments, "--corpus", "docs", "--strict", stdin=stdin)
        assert done.returncode == 1
        assert "nothing was ingested" in done.stderr
        assert count(database, "SELECT (SELECT count(*) FROM corpora) + (SELECT count(*) FROM runs)") == 0
    answer = commands.answer("ingest", "-", str(good), "--corpus", "docs", "--strict", stdin=json_lines(numbered(3)))
    assert (answer["accepted"], answer["repeated"]) == (600, 3)


def test_the_last_of_equal_ids_wins_within_and_across_batches(commands: Commands, database: Database) -> None:
    documents: list[dict[str, object]] = [
        *numbered(700),
        {"id": "doc-000699", "text": "within"},
        {"id": "doc-000000", "text": "across"},
    ]
    done = commands.run("ingest", "-", "--corpus", "docs", stdin=json_lines(documents))
    assert done.returncode == 0
    assert "700 accepted" in done.stdout
    assert "2 times: the last" in done.stderr
    texts = "SELECT count(*) FROM document_contents WHERE text IN ('within', 'across')"
    assert count(database, texts) == 2
    assert count(database, "SELECT count(*) FROM run_items WHERE outcome = 'pending'") == 700


def test_few_documents_go_by_the_interactive_queue_and_many_by_the_bulk_queue(
    commands: Commands, database: Database
) -> None:
    commands.answer("ingest", "-", "--corpus", "few", stdin=json_lines(numbered(64)))
    assert count(database, "SELECT count(*) FROM jobs WHERE queue = 'bulk'") == 0
    commands.answer("ingest", "-", "--corpus", "many", stdin=json_lines(numbered(65)))
    assert count(database, "SELECT count(*) FROM documents WHERE queue = 'bulk'") == 65


def test_folders_become_documents_named_by_their_path(commands: Commands, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "page.html").write_text("<p>Hello</p>")
    (folder / "read me.md").write_text("# Hello")
    (folder / "image.png").write_bytes(b"\x89PNG")
    answer = commands.answer("ingest", str(folder), "--corpus", "docs")
    assert sorted(document["id"] for document in answer["documents"]) == ["deep/page.html", "read me.md"]
    assert answer["left_out"] == {".png": 1}


def test_a_folder_without_anything_to_read_is_an_error_and_makes_no_run(
    commands: Commands, database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "scan.pdf").touch()
    done = commands.run("ingest", str(folder), "--corpus", "docs")
    assert done.returncode == 1
    assert "holds nothing that is read (.htm .html .md .rst .txt); left out: 1 .pdf" in done.stderr
    assert count(database, "SELECT (SELECT count(*) FROM corpora) + (SELECT count(*) FROM runs)") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.jsonl", "--corpus", "docs"],
        [".", "nowhere", "--corpus", "docs"],
        [".", "--corpus", "../docs"],
    ],
)
def test_what_cannot_be_read_or_named_is_one_sentence_and_writes_nothing(
    commands: Commands, database: Database, arguments: list[str]
) -> None:
    done = commands.run("ingest", *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert count(database, "SELECT count(*) FROM corpora") == 0


def test_ctrl_c_keeps_what_was_accepted_and_says_how_to_go_on(commands: Commands, database: Database) -> None:
    documents = numbered(1000)
    with commands.start("ingest", "-", "--corpus", "docs") as process:
        _feed_some(process, documents[:600], database)
        code, errors = interrupt(process)
    assert code == 130
    assert "the same command again goes on" in errors
    assert "Traceback" not in errors
    assert count(database, "SELECT count(*) FROM runs WHERE NOT sealed") == 0
    assert count(database, "SELECT count(*) FROM documents") == 500

    again = commands.answer("ingest", "-", "--corpus", "docs", stdin=json_lines(documents))
    assert (again["accepted"], again["unchanged"]) == (500, 500)


def test_a_killed_ingest_goes_on_by_running_it_again(commands: Commands, database: Database) -> None:
    documents = numbered(1000)
    with commands.start("ingest", "-", "--corpus", "docs") as process:
        _feed_some(process, documents[:600], database)
        process.kill()
    again = commands.answer("ingest", "-", "--corpus", "docs", stdin=json_lines(documents))
    assert (again["accepted"], again["unchanged"]) == (500, 500)


def test_a_terminated_ingest_seals_its_run(commands: Commands, database: Database) -> None:
    with commands.start("ingest", "-", "--corpus", "docs") as process:
        _feed_some(process, numbered(600), database)
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert count(database, "SELECT count(*) FROM runs WHERE NOT sealed") == 0


def _feed_some(process: "subprocess.Popen[bytes]", documents: list[dict[str, object]], database: Database) -> None:
    """Write documents to an ingest that then waits for more; returns when its first batch is in SQL."""
    assert process.stdin is not None
    process.stdin.write(json_lines(documents))
    process.stdin.flush()
    eventually(lambda: count(database, "SELECT count(*) FROM documents") == 500, timeout_s=30)


def test_a_slow_source_keeps_its_run_open(commands: Commands, database: Database) -> None:
    settings = Settings.model_validate({"database_url": commands.environment["FOREFILL_DATABASE_URL"]})
    service = open_ingestion(settings, database, nudge=lambda: None)
    run = OpenRun(service, "docs", kind="ingest", retrying=patiently(Output(as_json=False)), keep_open_s=0.01)
    with run:
        opened = count(database, "SELECT open_until FROM runs")
        eventually(lambda: count(database, "SELECT open_until FROM runs") > opened)
    assert count(database, "SELECT count(*) FROM runs WHERE sealed") == 1


def test_no_control_code_is_written_where_no_terminal_is(commands: Commands) -> None:
    done = commands.run("ingest", "-", "--corpus", "docs", stdin=json_lines(numbered(100)), env={"TERM": "xterm"})
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr


def test_memory_stays_flat(commands: Commands, tmp_path: Path) -> None:
    _assert_flat(commands, tmp_path, few=5_000, many=15_000)


@pytest.mark.long
def test_memory_stays_flat_over_200_mb(commands: Commands, tmp_path: Path) -> None:
    _assert_flat(commands, tmp_path, few=15_000, many=100_000)


def _assert_flat(commands: Commands, folder: Path, *, few: int, many: int) -> None:
    """Ingest documents of 2 kB: the larger file may need no more memory than the smaller one, but for noise."""
    peaks = []
    for documents in (few, many):
        path = folder / f"{documents}.jsonl"
        with path.open("wb") as file:
            for number in range(documents):
                file.write(json_lines([{"id": f"{number}", "text": f"{number} " + "lorem ipsum " * 165}]))
        peaks.append(commands.peak_kib("ingest", str(path), "--corpus", f"c{documents}", timeout_s=170))
    assert peaks[1] - peaks[0] < 12 * 1024, peaks
