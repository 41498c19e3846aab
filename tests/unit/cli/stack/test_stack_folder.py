"""The data directory: one owner, nothing left behind, no folder that cannot work."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from pipeline.cli.stack.folder import LOCK_FILE, owned_folder
from pipeline.errors import ConfigurationError, Conflict
from pipeline.settings import MIB

Usage = namedtuple("Usage", "total used free")


def test_a_folder_in_use_is_refused_and_its_owner_undisturbed(tmp_path: Path) -> None:
    with owned_folder(tmp_path), pytest.raises(Conflict, match="is in use"), owned_folder(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def test_the_refused_one_does_not_remove_the_lock(tmp_path: Path) -> None:
    with owned_folder(tmp_path):
        with pytest.raises(Conflict), owned_folder(tmp_path):
            pass
        assert (tmp_path / LOCK_FILE).exists()


def test_a_new_folder_that_stayed_empty_is_gone(tmp_path: Path) -> None:
    with owned_folder(tmp_path / "new") as folder:
        assert folder.is_dir()
    assert not (tmp_path / "new").exists()


def test_what_is_made_meanwhile_is_private_and_an_older_folder_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with owned_folder(tmp_path) as folder:
        (folder / "inside").mkdir()
    assert (tmp_path / "inside").stat().st_mode & 0o777 == 0o700
    assert tmp_path.stat().st_mode & 0o777 == 0o755


def test_a_lock_file_of_a_dead_owner_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).touch()
    with owned_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", ["it's", 'a"b', "x$y", "50%"])
def test_a_path_that_settings_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="choose another folder"), owned_folder(tmp_path / name):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot use"), owned_folder(tmp_path / "file"):
        pass


def test_a_full_disk_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1000 * MIB, 999 * MIB, 1 * MIB))
    with pytest.raises(ConfigurationError, match="is full: 1 MiB are free"), owned_folder(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
