"""The owner's folder in this process: flushing, the warning about size, and who may hold it."""

import shutil
from pathlib import Path

import pytest
import qdrant_edge as edge
import structlog

from pipeline.errors import Conflict, NotFound
from pipeline.retrieval.owner import engine as engine_module
from pipeline.retrieval.owner import shelf as shelf_module
from pipeline.retrieval.owner.engine import OutOfSpaceError
from pipeline.retrieval.owner.schema import CollectionSchema
from pipeline.retrieval.owner.shelf import Shelf

SCHEMA = CollectionSchema(dense={"dense": 2}, sparse={})


def insert(shelf: Shelf, *point_ids: int) -> None:
    points = [edge.Point(point_id, {"dense": [1.0, 2.0]}, {}) for point_id in point_ids]
    shelf.get("c").apply([edge.UpdateOperation.upsert_points(points)])


def test_a_write_makes_dirty_and_a_flush_makes_clean(tmp_path: Path) -> None:
    with Shelf.opened(tmp_path) as shelf:
        shelf.create("c", SCHEMA)
        assert not shelf.get("c").dirty
        insert(shelf, 1)
        assert shelf.get("c").dirty
        shelf.flush()
        assert not shelf.get("c").dirty


def test_what_was_written_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    with Shelf.opened(tmp_path) as shelf:
        shelf.create("c", SCHEMA)
        insert(shelf, 1, 2)
    with Shelf.opened(tmp_path) as shelf:
        assert shelf.names() == ["c"]
        assert shelf.get("c").schema == SCHEMA
        assert shelf.get("c").size() == 2


def test_on_a_disk_that_is_almost_full_nothing_is_written_and_everything_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's files are its memory: a full disk would end it in the middle of a write."""
    with Shelf.opened(tmp_path) as shelf:
        shelf.create("c", SCHEMA)
        insert(shelf, 1)
        with monkeypatch.context() as full:
            full.setattr(engine_module, "RESERVE_BYTES", shutil.disk_usage(tmp_path).total)
            with pytest.raises(OutOfSpaceError, match="No space left"):
                insert(shelf, 2)
            assert shelf.get("c").missing([1, 2]) == [2]
            shelf.flush()
        insert(shelf, 2)
        assert shelf.get("c").size() == 2


def test_a_large_collection_is_warned_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf_module, "BRUTE_FORCE_POINTS", 2)
    with structlog.testing.capture_logs() as logs, Shelf.opened(tmp_path) as shelf:
        shelf.create("c", SCHEMA)
        for point_id in range(5):
            insert(shelf, point_id)
            shelf.flush()
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [(entry["event"], entry["collection"], entry["points"]) for entry in warnings] == [
        ("qdrant.collection_large", "c", 3)
    ]
    assert "FOREFILL_QDRANT_URL" in warnings[0]["advice"]


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    with Shelf.opened(tmp_path), pytest.raises(Conflict, match="owned by another process"), Shelf.opened(tmp_path):
        pass
    with Shelf.opened(tmp_path) as shelf:
        assert shelf.names() == []


def test_a_folder_is_its_users_only(tmp_path: Path) -> None:
    with Shelf.opened(tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_name_is_taken_once_and_gone_after_dropping(tmp_path: Path) -> None:
    with Shelf.opened(tmp_path) as shelf:
        shelf.create("c", SCHEMA)
        with pytest.raises(Conflict):
            shelf.create("c", SCHEMA)
        assert shelf.drop("c")
        assert not shelf.drop("c")
        with pytest.raises(NotFound):
            shelf.get("c")
