"""The embedded Qdrant owner as a process: what it keeps when it is killed, and when it refuses to start."""

import asyncio
import socket
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigurationError, Unavailable
from pipeline.retrieval.owner.server import OwnerOptions, run_owner
from pipeline.retrieval.qdrant import connect_searcher, connect_writer
from pipeline.retrieval.vector_index import Tombstone
from tests.support.polling import eventually
from tests.support.ports import LOOPBACK, free_port
from tests.support.processes import Processes
from tests.support.qdrant import API_KEY, DIMENSION, QdrantOwner, fill, point


@pytest.fixture
def owner(processes: Processes, tmp_path: Path) -> QdrantOwner:
    """An owner for a test that kills or restarts it."""
    return QdrantOwner(processes, tmp_path / "qdrant").start()


def test_kill_in_the_middle_of_upserts_loses_nothing_acknowledged(owner: QdrantOwner) -> None:
    with closing(owner.writer()) as writer:
        writer.ensure_collection("c", dimension=DIMENSION)
        acknowledged = 0
        for round_ in range(3):
            acknowledged = upsert_until_killed(owner, start=acknowledged, kill_after=9 * round_ + 1)
            owner.start()
            kept = {state.document_id for state in writer.scroll("c")}
            assert {f"d{number}" for number in range(acknowledged)} <= kept


def upsert_until_killed(owner: QdrantOwner, *, start: int, kill_after: int) -> int:
    """Upsert batches of ten while another thread kills the owner; return the number of acknowledged points."""
    batches = 0

    def kill() -> None:
        eventually(lambda: batches >= kill_after)
        owner.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with closing(owner.writer()) as writer:
        while True:
            first = start + 10 * batches
            try:
                writer.upsert("c", [point(number) for number in range(first, first + 10)])
            except Unavailable:
                killer.join()
                return first
            batches += 1


def test_tombstones_and_payload_survive_a_kill(owner: QdrantOwner) -> None:
    with closing(owner.writer()) as writer:
        writer.ensure_collection("c", dimension=DIMENSION)
        writer.upsert("c", [point(0), point(1)])
        writer.bury("c", [Tombstone(point(0).point_id, "d0", 2)])
        before = list(writer.scroll("c"))
        owner.kill()
        owner.start()
        assert list(writer.scroll("c")) == before
        writer.upsert("c", [point(0)])
        assert writer.count("c") == 1


def test_sigterm_ends_it_in_order_and_everything_is_there_again(owner: QdrantOwner) -> None:
    with closing(owner.writer()) as writer:
        writer.ensure_collection("c", dimension=DIMENSION)
        writer.upsert("c", [point(number) for number in range(250)])
        assert owner.process.terminate(timeout_s=5) == 0
        assert "qdrant.stopped" in owner.process.log()
        owner.start()
        assert writer.count("c") == 250
        writer.ensure_collection("c", dimension=DIMENSION)


def test_a_second_owner_of_a_folder_is_refused_with_one_sentence(owner: QdrantOwner) -> None:
    second = owner.launch()
    assert second.wait() == 1
    _version, refusal = second.log().splitlines()
    assert refusal == f"error: {owner.data_dir} is owned by another process already (pid {owner.process.pid})"
    assert owner.is_ready()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"host": "0.0.0.0"}, "listens on loopback only"),
        ({"host": "example.org"}, "listens on loopback only"),
        ({"api_key": ""}, "needs an API key"),
        ({"socket_path": Path("/nowhere/socket")}, "Cannot listen on /nowhere/socket"),
    ],
)
def test_a_wrong_start_is_refused(tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    options = replace(OwnerOptions(data_dir=tmp_path / "q", api_key=API_KEY, port=0), **wrong)
    with pytest.raises(ConfigurationError, match=sentence):
        run_owner(options)


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as taken, pytest.raises(ConfigurationError, match="Cannot listen on"):
        run_owner(OwnerOptions(data_dir=tmp_path / "q", api_key=API_KEY, port=taken.getsockname()[1]))


def test_a_shard_that_cannot_be_loaded_is_named(owner: QdrantOwner) -> None:
    fill(owner)
    assert owner.process.terminate() == 0
    (shard,) = owner.data_dir.glob("collections/*/shard")
    for file in shard.rglob("*.json"):
        file.write_text("{")
    second = owner.launch()
    assert second.wait() == 1
    last = second.log().splitlines()[-1]
    assert "Collection 'c' cannot be loaded" in last
    assert str(shard.parent) in last


def test_leftovers_of_a_crash_while_creating_and_dropping_are_removed(owner: QdrantOwner) -> None:
    fill(owner)
    owner.kill()
    collections = owner.data_dir / "collections"
    for leftover in (".new-1", ".dropped-2"):
        (collections / leftover / "shard").mkdir(parents=True)
    owner.start()
    assert len(list(collections.iterdir())) == 1
    with closing(owner.writer()) as writer:
        assert writer.count("c") == 1


async def search_over(url: str) -> list[str]:
    searcher = connect_searcher(url, api_key=API_KEY)
    hits = await searcher.search("c", point(0).embedding, limit=1)
    await searcher.close()
    return [hit.document_id for hit in hits]


def test_both_clients_speak_over_a_unix_socket(processes: Processes, tmp_path: Path) -> None:
    path = tmp_path / "qdrant.sock"
    for _ in range(2):  # the second start finds the first one's socket file
        started = processes.start_module(
            "pipeline.retrieval.owner",
            "--data-dir",
            str(tmp_path / "q"),
            "--socket",
            str(path),
            env={"FOREFILL_QDRANT_API_KEY": API_KEY},
        )
        started.wait_for_output("qdrant.ready")
        assert path.stat().st_mode & 0o777 == 0o600
        with closing(connect_writer(f"unix://{path}", api_key=API_KEY)) as writer:
            writer.ensure_collection("c", dimension=DIMENSION)
            writer.upsert("c", [point(0)])
            assert writer.count("c") == 1
        assert asyncio.run(search_over(f"unix://{path}")) == ["d0"]
        started.kill()


def test_an_owner_that_is_down_is_unavailable_until_it_is_back(owner: QdrantOwner) -> None:
    with closing(owner.writer()) as writer:
        writer.ensure_collection("c", dimension=DIMENSION)
        owner.kill()
        with pytest.raises(Unavailable) as refused:
            writer.count("c")
        assert refused.value.service == "qdrant"
        owner.start()
        assert writer.count("c") == 0


def test_an_owner_that_hangs_is_unavailable_after_the_timeout() -> None:
    port = free_port()
    with socket.create_server((LOOPBACK, port)):
        writer = connect_writer(f"http://{LOOPBACK}:{port}", api_key=None, timeout_s=0.5)
        with closing(writer), pytest.raises(Unavailable):
            writer.ping()
