"""What a process believes of corpora and keys: when it takes over what is new, and what it keeps on disk."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import ProgrammingError

from pipeline.documents.access import AccessScope, ApiKey, find_key
from pipeline.errors import ExactnessError, InvalidInput, NotFound, Unavailable
from pipeline.services.configuration import Access, Configuration, ConfigurationSource, CorpusView, SpecCaching
from pipeline.services.configuration_copy import ConfigurationCopy

KEY = ApiKey("0" * 16, "ñame", b"\x07" * 32, frozenset(AccessScope), frozenset({"a"}), created_at=7, revoked_at=None)
WIDE = ApiKey("1" * 16, "all", b"\x08" * 32, frozenset({AccessScope.QUERY}), None, created_at=8, revoked_at=None)
VIEW = CorpusView("a", "a.1", "o200k_base/plain", "f", "e", (SpecCaching("o200k_base/plain"),))
KEYED = Configuration({"a": VIEW}, Access({KEY.id: KEY, WIDE.id: WIDE}, required=True))
REVOKED = Configuration({"a": VIEW}, Access({}, required=True))
KEYLESS = Configuration({"a": VIEW}, Access({}, required=False))


class Sql:
    """What SQL says; an error is raised instead."""

    def __init__(self, *answers: Configuration | Exception) -> None:
        self.answers = list(answers)

    def __call__(self) -> Configuration:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


AWAY = Unavailable("gone", service="database")


def source(load: Sql, path: Path | None = None, *, prepare: Callable[[CorpusView], object] = id) -> ConfigurationSource:
    return ConfigurationSource(load, copy=ConfigurationCopy(path), prepare=prepare)


async def started(load: Sql, path: Path | None = None) -> ConfigurationSource:
    made = source(load, path)
    await made.start()
    await made.close()
    return made


def refuse(_view: CorpusView) -> object:
    raise ExactnessError("other ids")


def refuse_all_but(fingerprint: str) -> Callable[[CorpusView], object]:
    return lambda view: view.fingerprint == fingerprint or refuse(view)


@pytest.mark.anyio
async def test_what_waiting_does_not_help_is_said_and_an_outage_is_one() -> None:
    mistaken = await started(Sql(InvalidInput("there is no spec 'nope/none'")))
    for _ in range(2):
        with pytest.raises(InvalidInput, match="no spec 'nope/none'"):
            await mistaken.corpus("a")
    with pytest.raises(Unavailable, match="not read yet"):
        await (await started(Sql(AWAY))).corpus("a")


@pytest.mark.anyio
async def test_keys_that_were_never_read_are_not_taken_for_none() -> None:
    nothing = await started(Sql(AWAY))
    with pytest.raises(Unavailable):
        nothing.access()


@pytest.mark.anyio
async def test_a_start_without_sql_knows_the_keys_of_its_copy(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    await started(Sql(KEYED), path)
    again = await started(Sql(AWAY), path)
    assert again.access() == KEYED.access
    assert again.current() == KEYED


@pytest.mark.anyio
@pytest.mark.parametrize("last", [REVOKED, KEYLESS])
async def test_a_copy_without_keys_still_says_whether_one_is_needed(tmp_path: Path, last: Configuration) -> None:
    path = tmp_path / "copy.json"
    await started(Sql(last), path)
    assert (await started(Sql(AWAY), path)).access() == last.access


@pytest.mark.anyio
async def test_the_last_good_keys_stay_while_sql_is_away() -> None:
    made = await started(Sql(KEYED, AWAY))
    await made.refresh()
    assert made.access() == KEYED.access


@pytest.mark.anyio
async def test_a_refusing_database_is_like_one_that_is_away() -> None:
    made = await started(Sql(KEYED, ProgrammingError("SELECT", {}, Exception("no such table"))))
    await made.refresh()
    assert made.access() == KEYED.access


@pytest.mark.anyio
async def test_a_revocation_does_not_wait_for_a_spec_that_cannot_be_loaded() -> None:
    made = source(Sql(KEYED, REVOKED))
    await made.refresh()
    made._prepare = refuse
    await made.refresh()
    assert made.access() == REVOKED.access
    assert made.current() == REVOKED


@pytest.mark.anyio
async def test_keys_are_known_even_if_no_spec_can_be_loaded() -> None:
    made = source(Sql(KEYED), prepare=refuse)
    await made.refresh()
    assert made.access() == KEYED.access
    with pytest.raises(Unavailable, match="o200k_base/plain is not usable here: other ids"):
        await made.corpus("a")


@pytest.mark.anyio
async def test_a_spec_that_cannot_be_loaded_costs_only_its_own_corpora() -> None:
    other, new = replace(VIEW, name="b", fingerprint="g"), replace(VIEW, name="c", fingerprint="g")
    made = source(Sql(replace(KEYED, corpora={"a": VIEW, "b": other})), prepare=refuse_all_but("g"))
    await made.refresh()
    assert await made.corpus("b") == other
    made._load = Sql(replace(KEYED, corpora={"a": VIEW, "c": new}))
    assert await made.corpus("c") == new
    with pytest.raises(NotFound):
        await made.corpus("b")
    with pytest.raises(Unavailable):
        await made.corpus("a")
    made._prepare = id
    await made.refresh()
    assert await made.corpus("a") == VIEW


@pytest.mark.anyio
async def test_a_corpus_goes_on_with_the_spec_it_had_and_follows_other_changes() -> None:
    made = source(Sql(KEYED), prepare=refuse_all_but("f"))
    await made.refresh()
    activated = replace(VIEW, spec_id="broken", fingerprint="g", embedder="another")
    made._load = Sql(replace(KEYED, corpora={"a": activated}))
    for _ in range(2):
        await made.refresh()
        assert await made.corpus("a") == replace(VIEW, embedder="another")
    made._load = Sql(replace(KEYED, corpora={"a": replace(activated, collection="a.2")}))
    await made.refresh()
    with pytest.raises(Unavailable, match="broken"):  # another corpus of the same name never had the former spec
        await made.corpus("a")


@pytest.mark.anyio
async def test_a_copy_that_could_not_be_written_is_written_later(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "copy.json"
    made = source(Sql(KEYED), path)
    await made.refresh()
    assert not path.parent.exists()
    path.parent.mkdir()
    await made.refresh()
    assert ConfigurationCopy(path).read() == KEYED


def test_the_copy_is_its_owners_alone_and_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    path.write_text("older")
    path.chmod(0o644)
    assert ConfigurationCopy(path).write(KEYED)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["copy.json"]
    assert b"ff_" not in path.read_bytes()
    read = ConfigurationCopy(path).read()
    assert read == KEYED
    assert find_key(read.access.keys, f"ff_{KEY.id}_guess") is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o666])
def test_a_copy_that_others_can_reach_is_not_believed(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "copy.json"
    assert ConfigurationCopy(path).write(KEYED)
    path.chmod(mode)
    assert ConfigurationCopy(path).read() is None


def test_a_link_or_a_pipe_is_no_copy(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    assert ConfigurationCopy(path).write(KEYED)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "", "missing"):
        assert ConfigurationCopy(tmp_path / name).read() is None


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"null", b"[]", b"{}", b'{"format":1}', b'{"format":3}', b"\xff", b'"x"'),
        b'[{"name":"a"}]',
        b'{"format":3,"corpora":[],"keys_required":false}',
        b'{"format":3,"corpora":[],"keys":[{}],"keys_required":true}',
        b'{"format":3,"corpora":[{"name":"a"}],"keys":[],"keys_required":true}',
        b'{"format":3,"corpora":[],"keys":{"a":1},"keys_required":true}',
        b'{"format":3,"corpora":[],"keys":null,"keys_required":true}',
    ],
)
@pytest.mark.anyio
async def test_what_is_no_copy_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "copy.json"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Unavailable):
        (await started(Sql(AWAY), path)).access()


def test_a_copy_that_does_not_clearly_say_no_key_is_needed_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "copy.json"
    path.write_bytes(b'{"format":3,"corpora":[],"keys":[],"keys_required":null}')
    path.chmod(0o600)
    read = ConfigurationCopy(path).read()
    assert read is not None
    assert read.access.required


def test_a_full_disk_leaves_the_older_copy_and_no_draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "copy.json"
    assert ConfigurationCopy(path).write(KEYED)

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert not ConfigurationCopy(path).write(replace(KEYED, corpora={}))
    assert ConfigurationCopy(path).read() == KEYED
    assert [each.name for each in tmp_path.iterdir()] == ["copy.json"]


def test_without_a_path_nothing_is_kept() -> None:
    assert ConfigurationCopy(None).write(KEYED)
    assert ConfigurationCopy(None).read() is None
