"""What must be in SQL, Redis and Qdrant when everything is published, computed without the code that publishes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import redis
from sqlalchemy import text

from pipeline.database import Database
from pipeline.documents.corpora import get_corpus
from pipeline.documents.manifest import unpack_spans
from pipeline.documents.splitting import Splitter
from pipeline.retrieval.points import point_id
from pipeline.settings import Settings
from pipeline.token_cache import decode_entry, entry_key
from pipeline.tokenizers import load_spec
from tests.unit.tokenizers.reference import official


class Stores(Protocol):
    """A stack's settings, which say where its stores are, and its open database."""

    @property
    def settings(self) -> Settings: ...

    @property
    def database(self) -> Database: ...


@dataclass(frozen=True, slots=True)
class Published:
    """One document as it must be found: its text, and the generation it has reached."""

    text: str
    generation: int


def check_published(stack: Stores, corpus_name: str, expected: Mapping[str, Published]) -> None:
    """Assert that SQL, Redis and Qdrant hold exactly these documents' passages, with exact ids, and nothing older."""
    splitter = Splitter()
    spec = load_spec(stack.settings.spec)
    with stack.database.read() as connection:
        corpus = get_corpus(connection, corpus_name)
        rows = connection.execute(
            text(
                "SELECT d.id, d.generation, d.served_generation, d.state, m.generation AS manifest, m.passages "
                "FROM documents d LEFT JOIN manifests m ON m.document_pk = d.pk "
                "WHERE d.corpus_pk = :corpus AND d.state <> 'deleted'"
            ),
            {"corpus": corpus.pk},
        ).all()
    assert {row.id: (row.generation, row.served_generation, row.state, row.manifest) for row in rows} == {
        name: (document.generation, document.generation, "served", document.generation)
        for name, document in expected.items()
    }
    points: dict[str, tuple[str, int, int, str]] = {}
    entries: dict[bytes, str] = {}
    for row in rows:
        passages = splitter.split(expected[row.id].text)
        spans = unpack_spans(row.passages)
        assert [(span.key, span.start, span.end) for span in spans] == [(p.key, p.start, p.end) for p in passages]
        for ordinal, passage in enumerate(passages):
            identity = point_id(
                corpus.collection, document_id=row.id, passage_key=passage.key.hex(), occurrence=passage.occurrence
            )
            points[identity] = (row.id, ordinal, expected[row.id].generation, passage.text)
            entries[passage.key] = passage.text
    assert _living_points(stack, corpus.collection) == points
    _check_entries(stack, spec.fingerprint, entries)


def _living_points(stack: Stores, collection: str) -> dict[str, tuple[str, int, int, str]]:
    key = stack.settings.qdrant_api_key
    headers = {"api-key": key.get_secret_value()} if key else {}
    found: dict[str, tuple[str, int, int, str]] = {}
    body: dict[str, Any] = {"limit": 100, "with_vector": True, "with_payload": True}
    with httpx.Client(base_url=stack.settings.qdrant_url, headers=headers, timeout=30) as client:
        while True:
            answer = client.post(f"/collections/{collection}/points/scroll", json=body).raise_for_status()
            result = answer.json()["result"]
            for record in result["points"]:
                payload = record["payload"]
                assert bool(record.get("vector")) is not bool(payload.get("buried")), record["id"]
                if not payload.get("buried"):
                    place = (payload["document_id"], payload["ordinal"], payload["generation"], payload["text"])
                    found[record["id"]] = place
            if (offset := result["next_page_offset"]) is None:
                return found
            body["offset"] = offset


def _check_entries(stack: Stores, fingerprint: str, entries: Mapping[bytes, str]) -> None:
    encoding = official("o200k_base")
    secret = stack.settings.entry_hmac_key
    hmac_key = secret.get_secret_value().encode() if secret else None
    with redis.Redis.from_url(stack.settings.cache_url) as client:
        for passage_key, passage in entries.items():
            key = entry_key(fingerprint, passage_key)
            value = client.get(key)
            assert isinstance(value, bytes), f"no entry for {key}"
            assert client.ttl(key) == -1, f"{key} expires"
            entry = decode_entry(key, value, hmac_key=hmac_key)
            # The guard's own token is dropped: what is left must be the ids in the middle of a prompt.
            assert entry.ids.tolist() == encoding.encode_ordinary(f"{passage}\n\nD")[:-1]
