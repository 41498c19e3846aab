"""The tests' own way to run commands: what a command sees and says is what a process of its own sees and says."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.command_server import run_command
from tests.support.commands import Commands
from tests.support.processes import forefill_command


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    made = Commands(tmp_path, {"FOREFILL_DATABASE_URL": f"sqlite:///{tmp_path}/commands.db"})
    made.upgrade()
    return made


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("--version",), b""),
        (("corpus", "ls", "--json"), b""),
        (("corpus", "rm", "none", "--yes"), b""),
        (("ingest", "-", "--corpus", "docs", "--strict"), b'{"id": "a"}\n'),
        (("nothing",), b""),
    ],
)
def test_it_is_as_in_a_process_of_its_own(commands: Commands, arguments: tuple[str, ...], stdin: bytes) -> None:
    own = subprocess.run(
        [*forefill_command(), *arguments],
        input=stdin,
        capture_output=True,
        env=commands._environment(None),
        cwd=commands.folder,
        check=False,
    )
    forked = commands.run(*arguments, stdin=stdin)
    assert (forked.returncode, forked.stdout, forked.stderr) == (
        own.returncode,
        own.stdout.decode(),
        own.stderr.decode(),
    )


def test_each_has_its_own_environment_and_folder(tmp_path: Path) -> None:
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        environment = {"FOREFILL_DATABASE_URL": "sqlite:///here.db"}
        for arguments in (["db", "upgrade"], ["corpus", "create", name], ["corpus", "ls", "--json"]):
            done = run_command(arguments, env=environment, cwd=folder, stdin=b"", timeout_s=60)
            assert done.returncode == 0, done.stderr
        assert [corpus["name"] for corpus in json.loads(done.stdout)["corpora"]] == [name]
        assert (folder / "here.db").exists()


def test_one_that_does_not_end_is_killed(commands: Commands) -> None:
    with pytest.raises(AssertionError, match="still runs after 1 s"):
        commands.run("status", "--watch", timeout_s=1)
    assert commands.run("--version").returncode == 0
