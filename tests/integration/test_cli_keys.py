"""`forefill keys` as users run it."""

import re
from pathlib import Path

import pytest

from pipeline.cli.main import run
from pipeline.documents.access import find_key, list_keys
from tests.support.commands import Commands

KEY = re.compile(r"ff_[0-9a-f]{16}_[A-Za-z0-9_-]{43}")


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    made = Commands(tmp_path, {"FOREFILL_DATABASE_URL": f"sqlite:///{tmp_path / 'forefill.db'}"})
    made.upgrade()
    return made


def test_a_key_is_printed_once_and_works(commands: Commands) -> None:
    done = commands.run("keys", "add", "ingest job", "--scope", "ingest,query", "--corpus", "docs", "--corpus", "wiki")
    assert done.returncode == 0
    (text,) = done.stdout.splitlines()
    assert KEY.fullmatch(text)
    assert text not in done.stderr
    database = commands.open_database()
    with database.read() as connection:
        keys = {key.id: key for key in list_keys(connection)}
    database.close()
    found = find_key(keys, text)
    assert found is not None
    assert found.scopes == {"ingest", "query"}
    assert found.corpora == frozenset({"docs", "wiki"})
    secret = text.split("_", 2)[2]
    for arguments in (("keys", "ls"), ("keys", "ls", "--json"), ("keys", "revoke", found.id)):
        shown = commands.run(*arguments)
        assert shown.returncode == 0
        assert found.id in shown.stdout
        assert secret not in shown.stdout + shown.stderr
        assert found.secret_hash.hex() not in shown.stdout


def test_json_is_one_object(commands: Commands) -> None:
    added = commands.answer("keys", "add", "all", "--scope", "admin", "--scope", "query")
    assert KEY.fullmatch(added.pop("key"))
    assert added["scopes"] == ["admin", "query"]
    assert added["corpora"] == ["*"]
    assert added["revoked_at"] is None
    assert commands.answer("keys", "ls") == {"keys": [added], "next": None}
    revoked = commands.answer("keys", "revoke", added["id"])
    assert revoked["revoked_at"] is not None
    assert commands.answer("keys", "ls", "--active") == {"keys": [], "next": None}
    assert commands.answer("keys", "ls")["keys"] == [revoked]
    assert commands.answer("keys", "revoke", added["id"]) == revoked
    assert commands.answer("keys", "forget", added["id"], "--yes") == revoked
    assert commands.answer("keys", "ls")["keys"] == []


def test_the_table_names_keys_scopes_and_corpora(commands: Commands) -> None:
    assert commands.run("keys", "ls").stdout == "no keys\n"
    commands.run("keys", "add", "one", "-s", "query", "-c", "b,a")
    commands.run("keys", "add", "two", "-s", "admin")
    header, first, second = commands.run("keys", "ls").stdout.splitlines()
    assert header.split() == ["ID", "NAME", "SCOPES", "CORPORA", "CREATED", "REVOKED"]
    assert re.search(r"one +query +a b +\S+Z +-$", first)
    assert re.search(r"two +admin +\* +\S+Z +-$", second)


def test_an_active_key_is_not_forgotten_and_the_last_record_not_without_asking(commands: Commands) -> None:
    first = commands.answer("keys", "add", "a", "--scope", "query")
    refused = commands.run("keys", "forget", first["id"], "--yes")
    assert refused.returncode == 1
    assert "revoke it first" in refused.stderr
    commands.run("keys", "revoke", first["id"])
    unanswered = commands.run("keys", "forget", first["id"])
    assert unanswered.returncode == 1
    assert [each["id"] for each in commands.answer("keys", "ls")["keys"]] == [first["id"]]
    assert commands.run("keys", "forget", first["id"], stdin=b"y\n").returncode == 0


def test_a_record_that_is_not_the_last_goes_without_asking(commands: Commands) -> None:
    first = commands.answer("keys", "add", "a", "--scope", "query")
    commands.answer("keys", "add", "b", "--scope", "query")
    commands.run("keys", "revoke", first["id"])
    assert commands.run("keys", "forget", first["id"]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("add", "x"), 2, "--scope"),
        (("add", "--scope", "query"), 2, "NAME"),
        (("add", "x", "--scope", "root"), 1, "query, ingest, admin"),
        (("add", "x", "--scope", ""), 1, "at least one scope"),
        (("add", "", "--scope", "query"), 1, "name"),
        (("add", "x" * 101, "--scope", "query"), 1, "name"),
        (("add", "a\x1b[31m", "--scope", "query"), 1, "name"),
        (("add", "x", "--scope", "query", "--corpus", "No Corpus"), 1, "No Corpus"),
        (("add", "x", "--scope", "query", "--corpus", ""), 1, "at least one corpus"),
        (("add", "x", "--scope", "query", "--corpus", ",".join(f"c{n}" for n in range(501))), 1, "500"),
        (("revoke", "0" * 16), 1, "no API key"),
        (("revoke", "'; DROP TABLE api_keys; --"), 1, "no API key"),
        (("forget", "0" * 16), 1, "no API key"),
        (("revoke",), 2, "ID"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(
    commands: Commands,
    arguments: tuple[str, ...],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(commands.folder)
    for name, value in commands.environment.items():
        monkeypatch.setenv(name, value)
    assert run(["keys", *arguments]) == code
    output = capfd.readouterr()
    (line,) = output.err.splitlines()
    assert (output.out, said in line) == ("", True), line
    database = commands.open_database()
    with database.read() as connection:
        assert list_keys(connection) == []
    database.close()


def test_whoever_puts_the_key_itself_where_its_id_belongs_does_not_see_it_repeated(commands: Commands) -> None:
    text = commands.answer("keys", "add", "a", "--scope", "query")["key"]
    done = commands.run("keys", "revoke", text)
    assert done.returncode == 1
    assert text.split("_", 2)[2] not in done.stderr
    assert "keys ls" in done.stderr
