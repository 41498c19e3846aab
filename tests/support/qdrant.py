"""The embedded Qdrant owner as a real process on a data folder that outlives it."""

from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from pipeline.retrieval.embedding import Embedding, SparseVector
from pipeline.retrieval.points import point_id
from pipeline.retrieval.qdrant import QdrantSearcher, QdrantWriter, connect_searcher, connect_writer
from pipeline.retrieval.vector_index import Point
from tests.support.ports import LOOPBACK, NO_TLS, free_port
from tests.support.processes import Process, Processes

API_KEY = "a key for tests"
DIMENSION = 4
POINTS = "/collections/c/points"


class QdrantOwner:
    """Starts, kills and restarts owners of one folder; always the same address, so that clients need not change."""

    def __init__(self, processes: Processes, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self._processes = processes
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def process(self) -> Process:
        """The latest process."""
        assert self._process is not None, "start() comes first"
        return self._process

    def launch(self, **environment: str) -> Process:
        """Start a process and do not wait for it."""
        return self._processes.start_module(
            "pipeline.retrieval.owner",
            "--data-dir",
            str(self.data_dir),
            "--port",
            str(self.port),
            env={"FOREFILL_QDRANT_API_KEY": API_KEY, **environment},
        )

    def start(self, **environment: str) -> "QdrantOwner":
        """Start a process and wait until it is ready."""
        self._process = self.launch(**environment)
        self._process.wait_until(self.is_ready, timeout_s=30.0)
        return self

    def is_ready(self) -> bool:
        """Whether it answers its probe."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2.0, verify=NO_TLS).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()

    def writer(self) -> QdrantWriter:
        """A new writer; the caller closes it."""
        return connect_writer(self.url, api_key=API_KEY)

    def searcher(self) -> QdrantSearcher:
        """A new searcher; the caller closes it."""
        return connect_searcher(self.url, api_key=API_KEY)

    def http(self) -> httpx.Client:
        """A plain HTTP client with the key, for requests that no client would send."""
        return httpx.Client(base_url=self.url, headers={"api-key": API_KEY}, timeout=10.0)


def point(number: int, *, generation: int = 1) -> Point:
    """A point that differs by its number."""
    return Point(
        point_id=point_id("corpus", document_id=f"d{number}", passage_key="0" * 32, occurrence=0),
        document_id=f"d{number}",
        ordinal=0,
        generation=generation,
        passage_key="0" * 32,
        text=f"text {number}",
        metadata={"number": number},
        token_counts={},
        embedding=Embedding(np.full(DIMENSION, number + 1.0, dtype=np.float32), SparseVector((number,), (1.0,))),
    )


def fill(owner: QdrantOwner) -> None:
    """Make the collection `c` with one point."""
    with closing(owner.writer()) as writer:
        writer.ensure_collection("c", dimension=DIMENSION)
        writer.upsert("c", [point(0)])


def found(client: httpx.Client) -> list[dict[str, Any]]:
    """Search by a vector that every point is near to."""
    response = client.post(f"{POINTS}/query", json={"query": [1.0] * DIMENSION, "using": "dense"})
    points: list[dict[str, Any]] = response.json()["result"]["points"]
    return points
