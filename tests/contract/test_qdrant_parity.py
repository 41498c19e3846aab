"""The embedded owner against qdrant-client's local mode: the same calls of the same client, the same answers."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from qdrant_client import QdrantClient, models

from tests.support.processes import Processes
from tests.support.qdrant import API_KEY, QdrantOwner

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

WORDS = ["red", "green", "blue"]


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[QdrantClient, QdrantClient]]:
    """The owner and local mode, filled alike."""
    with tempfile.TemporaryDirectory(prefix="ff-q-") as folder, Processes(Path(folder)) as processes:
        owner = QdrantOwner(processes, Path(folder) / "data").start()
        both = (
            QdrantClient(owner.url, headers={"api-key": API_KEY}, check_compatibility=True),
            QdrantClient(":memory:"),
        )
        for client in both:
            fill(client)
        yield both
        for client in both:
            client.close()


def fill(client: QdrantClient) -> None:
    client.create_collection(
        "c",
        vectors_config={"dense": models.VectorParams(size=3, distance=models.Distance.COSINE)},
        sparse_vectors_config={"sparse": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    client.create_payload_index("c", "word", models.PayloadSchemaType.KEYWORD)
    client.create_payload_index("c", "number", models.PayloadSchemaType.INTEGER)
    client.create_payload_index("c", "odd", models.PayloadSchemaType.BOOL)
    client.upsert("c", [made(number) for number in range(40)])


def made(number: int) -> models.PointStruct:
    vector: dict[str, Any] = {"dense": [1.0, number / 7.0, (number % 5) / 3.0]}
    if number % 4:
        vector["sparse"] = models.SparseVector(
            indices=[number % 3, 10 + number], values=[1.0 + number / 100.0, 1.0 + number / 50.0]
        )
    payload: dict[str, Any] = {
        "word": WORDS[number % 3],
        "number": number,
        "odd": number % 2 == 1,
        "nested": {"n": number},
    }
    if number % 6 == 0:
        payload["sometimes"] = [number, "x"]
    if number % 10 == 0:
        payload["nothing"] = None
    return models.PointStruct(id=str(UUID(int=number)), vector={} if number == 39 else vector, payload=payload)


def equals(key: str, *, value: Any) -> models.FieldCondition:
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))


FILTERS = {
    "text": models.Filter(must=[equals("word", value="red")]),
    "number": models.Filter(must=[equals("number", value=7)]),
    "true": models.Filter(must=[equals("odd", value=True)]),
    "false": models.Filter(must=[equals("odd", value=False)]),
    "not true": models.Filter(must_not=[equals("odd", value=True)]),
    "path": models.Filter(must=[equals("nested.n", value=3)]),
    "quoted path": models.Filter(must=[equals('nested."n"', value=3)]),
    "any": models.Filter(must=[models.FieldCondition(key="word", match=models.MatchAny(any=["red", "blue"]))]),
    "any of numbers": models.Filter(must=[models.FieldCondition(key="number", match=models.MatchAny(any=[1, 2]))]),
    "any of none": models.Filter(must=[models.FieldCondition(key="word", match=models.MatchAny(any=[]))]),
    "except": models.Filter(must=[models.FieldCondition(key="word", match=models.MatchExcept(**{"except": ["red"]}))]),
    "below": models.Filter(must=[models.FieldCondition(key="number", range=models.Range(lt=5))]),
    "between": models.Filter(must=[models.FieldCondition(key="number", range=models.Range(gt=5, lte=9.5))]),
    "has id": models.Filter(must=[models.HasIdCondition(has_id=[str(UUID(int=1)), str(UUID(int=99))])]),
    "has no id": models.Filter(must_not=[models.HasIdCondition(has_id=[str(UUID(int=1))])]),
    "has vector": models.Filter(must=[models.HasVectorCondition(has_vector="sparse")]),
    "empty": models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="sometimes"))]),
    "null": models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="nothing"))]),
    "should": models.Filter(should=[equals("number", value=1), equals("number", value=2)]),
    "must and should": models.Filter(
        must=[equals("odd", value=True)], should=[equals("number", value=1), equals("number", value=2)]
    ),
    "one condition, no list": models.Filter(must=equals("number", value=1)),
    "filter in a filter": models.Filter(
        must=[
            models.Filter(should=[equals("word", value="red"), equals("odd", value=True)]),
            equals("word", value="red"),
        ]
    ),
    "at least two": models.Filter(
        min_should=models.MinShould(
            conditions=[equals("odd", value=True), equals("word", value="red"), equals("number", value=3)], min_count=2
        )
    ),
    "nothing asked": models.Filter(),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_mean_the_same(clients: tuple[QdrantClient, QdrantClient], name: str) -> None:
    found = []
    for client in clients:
        records, rest = client.scroll("c", FILTERS[name], limit=100)
        assert rest is None
        assert client.count("c", FILTERS[name]).count == len(records)
        found.append([record.id for record in records])
    assert found[0] == found[1]


DENSE, SPARSE = [0.9, 1.0, 0.4], models.SparseVector(indices=[0, 12, 14], values=[1.0, 2.0, 0.5])
PREFETCH = [
    models.Prefetch(query=DENSE, using="dense", limit=30),
    models.Prefetch(query=SPARSE, using="sparse", limit=30),
]
QUERIES: dict[str, dict[str, Any]] = {
    "dense": {"query": DENSE, "using": "dense"},
    "nearest": {"query": models.NearestQuery(nearest=DENSE), "using": "dense"},
    "sparse": {"query": SPARSE, "using": "sparse"},
    "filtered": {"query": DENSE, "using": "dense", "query_filter": FILTERS["true"]},
    "offset": {"query": DENSE, "using": "dense", "offset": 3, "limit": 4},
    "threshold": {"query": DENSE, "using": "dense", "score_threshold": 0.9},
    "no vector of this kind": {"query": models.SparseVector(indices=[999], values=[1.0]), "using": "sparse"},
    "include": {"query": DENSE, "using": "dense", "with_payload": ["word", "nested.n"]},
    "exclude": {
        "query": DENSE,
        "using": "dense",
        "with_payload": models.PayloadSelectorExclude(exclude=["word", "nested"]),
    },
    "no payload": {"query": DENSE, "using": "dense", "with_payload": False},
    "rrf": {"prefetch": PREFETCH, "query": models.RrfQuery(rrf=models.Rrf(k=2)), "limit": 60},
    "rrf, other constant": {"prefetch": PREFETCH, "query": models.RrfQuery(rrf=models.Rrf(k=60)), "limit": 60},
    "fusion": {"prefetch": PREFETCH, "query": models.FusionQuery(fusion=models.Fusion.RRF), "limit": 60},
}


@pytest.mark.parametrize("name", QUERIES)
def test_queries_mean_the_same(clients: tuple[QdrantClient, QdrantClient], name: str) -> None:
    found = []
    for client in clients:
        hits = client.query_points("c", **QUERIES[name]).points
        found.append({hit.id: (round(hit.score, 4), hit.payload) for hit in hits})
    assert found[0] == found[1]
    assert found[0] or name.startswith("no vector")


def test_vectors_come_back_alike(clients: tuple[QdrantClient, QdrantClient]) -> None:
    ids = [str(UUID(int=number)) for number in (1, 4, 39)]
    found = [{each.id: each for each in client.retrieve("c", ids, with_vectors=True)} for client in clients]
    for point_id in ids:
        one, other = (vectors_of(each[point_id]) for each in found)
        assert one.keys() == other.keys()
        assert one.get("dense", []) == pytest.approx(other.get("dense", []), abs=1e-6)
        if "sparse" in one:
            assert one["sparse"].indices == other["sparse"].indices
            assert one["sparse"].values == pytest.approx(other["sparse"].values)


def vectors_of(record: models.Record) -> dict[str, Any]:
    assert isinstance(record.vector, dict)
    return dict(record.vector)


def test_collections_are_described_alike(clients: tuple[QdrantClient, QdrantClient]) -> None:
    one, other = (client.get_collection("c") for client in clients)
    assert one.config.params.vectors == other.config.params.vectors
    assert one.config.params.sparse_vectors == other.config.params.sparse_vectors
    assert one.points_count == other.points_count == 40
    assert {key: index.data_type.value for key, index in one.payload_schema.items()} == {
        "word": "keyword",
        "number": "integer",
        "odd": "bool",
    }
