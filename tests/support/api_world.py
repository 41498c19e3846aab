"""The API in this process on real stores: Valkey, the Qdrant owner, SQL; jobs run when a test says so."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from api.app import create_app
from pipeline.factory import open_database
from pipeline.services.schema import upgrade
from pipeline.settings import Settings
from tests.support.pipeline_runner import PipelineRunner, open_pipeline_runner
from tests.support.processes import Processes
from tests.support.qdrant import API_KEY, QdrantOwner
from tests.support.valkey import ValkeyServer

BASE_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True, slots=True)
class ApiWorld:
    """A running API and what a test does around it."""

    client: TestClient
    settings: Settings
    worker: PipelineRunner
    cache: ValkeyServer

    def put(
        self, corpus: str, documents: Mapping[str, str], *, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Set documents by id, expect 202, and return the answer."""
        body = {"documents": [{"id": key, "text": text, "metadata": metadata} for key, text in documents.items()]}
        return self._accepted("PUT", f"/v1/corpora/{corpus}/documents", body)

    def serve(
        self, corpus: str, documents: Mapping[str, str], *, metadata: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Set documents and run the jobs this causes."""
        answer = self.put(corpus, documents, metadata=metadata)
        self.worker.run_pending_jobs()
        return answer

    def delete(self, corpus: str, ids: Sequence[str]) -> dict[str, Any]:
        """Delete documents, expect 202, and return the answer."""
        return self._accepted("DELETE", f"/v1/corpora/{corpus}/documents", {"ids": list(ids)})

    def get(self, path: str) -> dict[str, Any]:
        """Return what an address shows, expecting 200."""
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def retrieve(self, corpus: str, query: str, **options: Any) -> dict[str, Any]:
        """Ask a question, expecting 200."""
        response = self.client.post("/v1/retrieve", json={"corpus": corpus, "query": query, **options})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def _accepted(self, method: str, path: str, body: object) -> dict[str, Any]:
        response = self.client.request(method, path, json=body)
        assert response.status_code == 202, response.text
        answer: dict[str, Any] = response.json()
        return answer


def small_limits(*, database_url: str, cache_url: str, qdrant_url: str) -> Settings:
    """Settings with limits that a test can exceed cheaply."""
    return Settings(
        database_url=database_url,
        broker_url=cache_url,
        cache_url=cache_url,
        qdrant_url=qdrant_url,
        qdrant_api_key=API_KEY,  # type: ignore[arg-type]  # pydantic makes the secret
        max_request_documents=20,
        max_request_bytes=64 * 1024,
        max_document_bytes=4096,
        max_metadata_bytes=1024,
        max_query_bytes=1024,
        max_batch_queries=4,
        spec_validation_contexts=1_000,
    )


@contextmanager
def open_api_world(folder: Path, *, database_url: str | None = None) -> Iterator[ApiWorld]:
    """Start everything and end it.

    Args:
        folder: For what the processes keep.
        database_url: An empty database; None for SQLite in the folder.
    """
    with ValkeyServer() as cache, Processes(folder) as processes:
        owner = QdrantOwner(processes, folder / "qdrant").start()
        settings = small_limits(
            database_url=database_url or f"sqlite:///{folder / 'forefill.db'}",
            cache_url=cache.url,
            qdrant_url=owner.url,
        )
        database = open_database(settings, durable=True)
        upgrade(database)
        database.close()
        client = TestClient(create_app(settings), base_url=BASE_URL, raise_server_exceptions=False)
        with open_pipeline_runner(settings) as worker, client:
            yield ApiWorld(client, settings, worker, cache)
