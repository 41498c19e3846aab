"""What is made of arguments before anything is opened."""

import io

import pytest
import typer

from pipeline.cli.delete import all_ids, choose_batches
from pipeline.cli.inputs import Inputs
from pipeline.cli.main import run
from pipeline.cli.processes import parse_queues, worker_arguments
from pipeline.cli.retrieve import parse_filter
from pipeline.documents.validation import DocumentLimits
from pipeline.errors import InvalidInput

LIMITS = DocumentLimits(max_text_bytes=1000, max_metadata_bytes=1000)


def test_filters_are_json_values_or_text() -> None:
    assert parse_filter(["lang=en", "year=2024", "draft=false", 'tag=["a","b"]', "note=a=b"]) == {
        "lang": "en",
        "year": 2024,
        "draft": False,
        "tag": ["a", "b"],
        "note": "a=b",
    }
    assert parse_filter([]) is None
    with pytest.raises(typer.BadParameter):
        parse_filter(["lang"])


def test_a_worker_consumes_the_queues_it_is_told() -> None:
    assert parse_queues("bulk, interactive,bulk") == ["bulk", "interactive"]
    arguments = worker_arguments(["bulk"], concurrency=3, name="w")
    assert arguments[arguments.index("-Q") + 1] == "bulk"
    assert arguments[arguments.index("-c") + 1] == "3"
    assert arguments[arguments.index("-n") + 1] == "w@%h"
    assert {"--without-gossip", "--without-mingle", "prefork"} < set(arguments)


@pytest.mark.parametrize("text", ["", ",", "bulk,typo"])
def test_an_unknown_queue_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="interactive, bulk, maintenance"):
        parse_queues(text)


def test_ids_come_from_arguments_and_standard_input() -> None:
    lines = io.BytesIO(b"b\r\n\n  c \n")
    assert list(all_ids(["a", "-", "d"], lines)) == ["a", "b", "  c ", "d"]
    with pytest.raises(InvalidInput, match="-:2"):
        list(all_ids(["-"], io.BytesIO(b"a\n\xff\n")))
    with pytest.raises(InvalidInput):
        list(all_ids([""], []))


def test_many_deletions_go_by_the_bulk_queue_in_batches() -> None:
    queue, batches = choose_batches(str(number % 700) for number in range(1200))
    assert queue == "bulk"
    assert [len(batch) for batch in batches] == [500, 500, 200]
    queue, batches = choose_batches(["a", "b", "a"])
    assert (queue, list(batches)) == ("interactive", [["a", "b"]])


def test_standard_input_is_read_once() -> None:
    with pytest.raises(typer.BadParameter):
        Inputs.checked(["-", "-"], limits=LIMITS)


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["ingest"],
        ["ingest", "docs"],
        ["runs", "ls", "--limit", "0"],
        ["retrieve", "why", "--corpus", "c", "--order", "random"],
        ["--data-dir"],
        ["status", "--frob"],
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("forefill: ")
    assert len(captured.err.splitlines()) == 1


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    commands = capsys.readouterr().out
    expected = "db corpus ingest delete runs retrieve status explain doctor api worker dispatcher qdrant"
    assert all(f"\n  {name} " in commands for name in expected.split())
