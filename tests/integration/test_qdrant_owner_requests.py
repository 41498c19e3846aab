"""Requests to the embedded Qdrant owner: what it refuses, and that nothing sent to it can break it."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from pipeline.errors import ConfigurationError
from pipeline.retrieval.owner.writes import MAX_NESTING
from pipeline.retrieval.qdrant import connect_writer
from tests.support.processes import Processes
from tests.support.qdrant import API_KEY, POINTS, QdrantOwner, fill, found, point


@pytest.fixture
def owner(processes: Processes, tmp_path: Path) -> QdrantOwner:
    """An owner for a test that kills or restarts it."""
    return QdrantOwner(processes, tmp_path / "qdrant").start()


UUID = "00000000-0000-0000-0000-000000000001"


@pytest.fixture(scope="module")
def lasting_owner() -> Iterator[QdrantOwner]:
    """An owner for all tests that only talk to it."""
    with tempfile.TemporaryDirectory(prefix="ff-q-") as folder, Processes(Path(folder)) as processes:
        yield QdrantOwner(processes, Path(folder) / "qdrant").start()


@pytest.fixture
def http(lasting_owner: QdrantOwner) -> Iterator[httpx.Client]:
    """A client of the lasting owner, whose one collection `c` has one point."""
    with lasting_owner.http() as client:
        if not is_untouched(client):
            for left in client.get("/collections").json()["result"]["collections"]:
                client.delete(f"/collections/{left['name']}")
            fill(lasting_owner)
        yield client


def is_untouched(client: httpx.Client) -> bool:
    """Whether there is what `fill` makes, and nothing else."""
    if client.get("/collections").json()["result"]["collections"] != [{"name": "c"}]:
        return False
    points = client.post(f"{POINTS}/scroll", json={}).json()["result"]["points"]
    return [(each["id"], each["payload"].get("text"), len(each["payload"])) for each in points] == [
        (point(0).point_id, "text 0", 7)
    ]


def error_of(response: httpx.Response) -> str:
    message: str = response.json()["status"]["error"]
    return message


def test_a_dropped_collection_leaves_nothing_on_disk(lasting_owner: QdrantOwner, http: httpx.Client) -> None:
    assert http.delete("/collections/c").json()["result"] is True
    assert list((lasting_owner.data_dir / "collections").iterdir()) == []
    assert http.delete("/collections/c").json()["result"] is False


@pytest.mark.parametrize("headers", [{}, {"api-key": "wrong"}, {"api-key": API_KEY + "x"}, {"api-key": "ü"}])
def test_without_the_key_nothing_but_the_probes_is_answered(
    lasting_owner: QdrantOwner, headers: dict[str, str]
) -> None:
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    with httpx.Client(base_url=lasting_owner.url, headers=encoded) as client:
        for method, path in (("GET", "/"), ("GET", "/collections"), ("PUT", POINTS), ("GET", "/nonsense")):
            assert client.request(method, path).status_code == 401
        for probe in ("/healthz", "/livez", "/readyz"):
            assert client.get(probe).status_code == 200


def test_clients_say_that_the_key_is_wrong(lasting_owner: QdrantOwner) -> None:
    writer = connect_writer(lasting_owner.url, api_key="wrong")
    with closing(writer), pytest.raises(ConfigurationError, match="key"):
        writer.ping()


def test_it_says_which_version_of_the_api_it_speaks(http: httpx.Client) -> None:
    assert http.get("/").json()["version"].startswith("1.20.")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/telemetry", None),
        ("POST", "/collections/aliases", {"actions": []}),
        ("POST", "/collections/c/snapshots", None),
        ("PUT", "/collections/c/points/vectors", {"points": []}),
        ("PATCH", "/collections/c", {}),
        ("PUT", "/collections/d", {"vectors": {"size": 4, "distance": "Euclid"}}),
        ("PUT", "/collections/d", {"vectors": {"size": 4, "distance": "Cosine", "on_disk": True}}),
        ("PUT", "/collections/d", {"vectors": {"size": 4, "distance": "Cosine"}, "shard_number": 2}),
        ("PUT", "/collections/d", {}),
        ("PUT", "/collections/d%20e", {"vectors": {"size": 4, "distance": "Cosine"}}),
        ("PUT", "/collections/c/index", {"field_name": "text", "field_schema": "text"}),
        ("PUT", f"{POINTS}?force=true", {"points": []}),
        ("PUT", POINTS, {"batch": {"ids": [1], "vectors": [[1.0] * 4]}}),
        ("PUT", POINTS, {"points": [{"id": 1, "vector": {}}], "shard_key": "a"}),
        ("POST", f"{POINTS}/scroll", {"order_by": "generation"}),
        ("POST", f"{POINTS}/query", {"query": {"recommend": {"positive": [1]}}}),
        ("POST", f"{POINTS}/query", {"query": [1.0] * 4, "using": "dense", "lookup_from": {"collection": "x"}}),
        ("POST", f"{POINTS}/query", {"query": [1.0] * 4, "using": "dense", "params": {"hnsw_ef": 5}}),
        (
            "POST",
            f"{POINTS}/query",
            {"prefetch": [{"query": [1.0] * 4, "using": "dense"}], "query": {"fusion": "dbsf"}},
        ),
        ("POST", f"{POINTS}/count", {"filter": {"must": [{"key": "text", "match": {"text": "x"}}]}}),
    ],
)
def test_what_is_not_served_is_refused_in_words(http: httpx.Client, method: str, path: str, body: object) -> None:
    response = http.request(method, path, json=body)
    assert response.status_code == 400
    assert error_of(response)


def bad_vectors() -> list[dict[str, Any]]:
    return [
        {"dense": [1.0, 2.0, 3.0]},
        {"dense": [0.0, 0.0, 0.0, 0.0]},
        {"dense": [1e-30, 0.0, 0.0, 0.0]},
        {"dense": [1e30, 1e30, 1e30, 1e30]},
        {"dense": [1e39, 0.0, 0.0, 1.0]},
        {"dense": [[1.0, 2.0, 3.0, 4.0]]},
        {"dense": {"indices": [1], "values": [1.0]}},
        {"other": [1.0, 2.0, 3.0, 4.0]},
        {"sparse": [1.0, 2.0, 3.0, 4.0]},
        {"sparse": {"indices": [1, 2], "values": [1.0]}},
        {"sparse": {"indices": [1], "values": [1.0, 2.0]}},
        {"sparse": {"indices": [1, 1], "values": [1.0, 2.0]}},
        {"sparse": {"indices": [-1], "values": [1.0]}},
        {"sparse": {"indices": [2**32], "values": [1.0]}},
        {"sparse": {"indices": [1], "values": [1e300]}},
        {"dense": {"text": "x", "model": "y"}},
    ]


@pytest.mark.parametrize("vector", bad_vectors())
def test_a_bad_vector_is_refused_and_none_of_its_batch_is_kept(http: httpx.Client, vector: dict[str, Any]) -> None:
    good = {"id": 1, "vector": {"dense": [1.0, 2.0, 3.0, 4.0]}, "payload": {}}
    response = http.put(POINTS, json={"points": [good, {"id": 2, "vector": vector}]})
    assert response.status_code == 400
    assert http.post(f"{POINTS}/count", json={}).json()["result"]["count"] == 1


@pytest.mark.parametrize("vector", bad_vectors())
def test_a_bad_query_is_refused(http: httpx.Client, vector: dict[str, Any]) -> None:
    ((using, query),) = vector.items()
    for body in (
        {"query": query, "using": using},
        {"prefetch": [{"query": query, "using": using}], "query": {"rrf": {"k": 2}}},
    ):
        assert http.post(f"{POINTS}/query", json=body).status_code == 400


@pytest.mark.parametrize("bad_id", [-1, 2**64, "x", "", 1.5, None, [1], True])
def test_a_bad_point_id_is_refused(http: httpx.Client, bad_id: object) -> None:
    assert http.put(POINTS, json={"points": [{"id": bad_id, "vector": {}}]}).status_code == 400
    assert http.post(POINTS, json={"ids": [bad_id]}).status_code == 400


def test_one_id_twice_is_refused_however_it_is_written(http: httpx.Client) -> None:
    twice = [{"id": UUID, "vector": {}}, {"id": UUID.replace("-", ""), "vector": {}}]
    assert "twice" in error_of(http.put(POINTS, json={"points": twice}))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (POINTS, {"points": [{"id": number, "vector": {}} for number in range(101)]}),
        (
            f"{POINTS}/batch",
            {"operations": [{"delete": {"points": [number]}} for number in range(101)]},
        ),
        (f"{POINTS}/delete", {"points": list(range(1001))}),
        (f"{POINTS}/scroll", {"limit": 10_001}),
        (f"{POINTS}/query", {"query": [1.0] * 4, "using": "dense", "limit": 10**12}),
        (f"{POINTS}/query", {"query": [1.0] * 4, "using": "dense", "offset": -1}),
        (f"{POINTS}/query/batch", {"searches": [{"query": [1.0] * 4, "using": "dense"}] * 101}),
        (f"{POINTS}/count", {"filter": {"must": [{"has_id": list(range(1001))}]}}),
    ],
)
def test_what_would_stall_the_process_is_refused(http: httpx.Client, path: str, body: object) -> None:
    method = "PUT" if path == POINTS else "POST"
    assert http.request(method, path, json=body).status_code == 400


def test_a_batch_with_one_bad_operation_changes_nothing(http: httpx.Client) -> None:
    everything: dict[str, Any] = {"filter": {}}
    operations = [
        {"set_payload": {"payload": {"touched": True}, **everything}},
        {"upsert": {"points": [{"id": 7, "vector": {"dense": [0.0] * 4}}]}},
    ]
    assert http.post(f"{POINTS}/batch", json={"operations": operations}).status_code == 400
    touched = {"must": [{"key": "touched", "match": {"value": True}}]}
    assert http.post(f"{POINTS}/count", json={"filter": touched}).json()["result"]["count"] == 0


def test_setting_payload_of_a_missing_point_changes_nothing(http: httpx.Client) -> None:
    stored = point(0).point_id
    body = {"payload": {"touched": True}, "points": [stored, UUID]}
    response = http.post(f"{POINTS}/payload", json=body)
    assert response.status_code == 404
    assert UUID in error_of(response)
    (kept,) = http.post(POINTS, json={"ids": [stored], "with_payload": ["touched"]}).json()["result"]
    assert kept["payload"] == {}


def test_payload_is_merged_or_replaced(http: httpx.Client) -> None:
    stored = point(0).point_id
    assert http.post(f"{POINTS}/payload", json={"payload": {"a": 1}, "points": [stored]}).status_code == 200
    (kept,) = http.post(POINTS, json={"ids": [stored]}).json()["result"]
    assert (kept["payload"]["a"], kept["payload"]["document_id"]) == (1, "d0")
    assert http.put(f"{POINTS}/payload", json={"payload": {"b": 2}, "points": [stored]}).status_code == 200
    (kept,) = http.post(POINTS, json={"ids": [stored], "with_vector": True}).json()["result"]
    assert kept["payload"] == {"b": 2}
    assert kept["vector"]["sparse"] == {"indices": [0], "values": [1.0]}


MALFORMED = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe",
    b'{"points": NaN}',
    b'{"points": [{"id": 1, "vector": {"dense": [NaN, 1, 1, 1]}}]}',
    b'{"points": [{"id": 1, "vector": {"dense": [1e999, 1, 1, 1]}}]}',
    b'{"points": [{"id": 1, "vector": {}, "payload": {"a": "\\ud800"}}]}',
    b"[" * 100_000,
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'{"points":[{"id":1,"vector":{},"payload":{"a":' + b"[" * 900 + b"]" * 900 + b"}}]}",
    b'{"points": [], "update_filter": ' + b'{"must": [' * 300 + b"{}" + b"]}" * 300 + b"}",
]


def test_a_filter_hundreds_of_levels_deep_is_refused_before_a_model_sees_it(http: httpx.Client) -> None:
    refused = http.put(POINTS, content=MALFORMED[-1])
    assert "nested" in refused.json()["status"]["error"]


@pytest.mark.parametrize("content", MALFORMED)
def test_a_malformed_body_is_a_mistake_of_the_caller(http: httpx.Client, content: bytes) -> None:
    assert http.put(POINTS, content=content).status_code == 400
    assert [hit["id"] for hit in found(http)] == [point(0).point_id]


def test_no_bad_request_destroys_a_shard(owner: QdrantOwner) -> None:
    fill(owner)
    with owner.http() as client:
        for content in MALFORMED:
            client.put(POINTS, content=content)
        for vector in bad_vectors():
            client.put(POINTS, json={"points": [{"id": 2, "vector": vector}]})
        before = found(client)
        owner.kill()
        owner.start()
        assert found(client) == before


def test_payload_may_be_nested_as_deep_as_it_can_be_read_back(owner: QdrantOwner) -> None:
    fill(owner)
    nested: dict[str, Any] = {}
    for _ in range(MAX_NESTING - 1):
        nested = {"a": nested}
    with owner.http() as client:
        assert client.put(POINTS, json={"points": [{"id": 1, "vector": {}, "payload": nested}]}).status_code == 200
        assert (
            client.put(POINTS, json={"points": [{"id": 2, "vector": {}, "payload": {"a": nested}}]}).status_code == 400
        )
        owner.kill()
        owner.start()
        assert client.post(POINTS, json={"ids": [1, 2]}).json()["result"][0]["payload"] == nested


def test_a_body_over_the_limit_is_refused_and_the_next_is_served(http: httpx.Client) -> None:
    big = b" " * (33 * 1024 * 1024)
    assert http.put(POINTS, content=big).status_code == 413
    assert http.put(POINTS, content=iter([big[: 20 * 1024 * 1024]] * 2)).status_code == 413
    assert http.get("/collections").status_code == 200


def test_mutated_bodies_never_fail_the_engine_nor_destroy_the_shard(owner: QdrantOwner) -> None:
    fill(owner)
    chance = random.Random(20_261_123)
    statuses: set[int] = set()
    with owner.http() as client:
        for _ in range(1_500):
            method, path, body = chance.choice(bodies())
            mutated = mutate(orjson.loads(orjson.dumps(body)), chance)
            response = client.request(method, path, content=orjson.dumps(mutated))
            assert response.status_code in {200, 400, 404, 409}, (path, mutated, response.text)
            statuses.add(response.status_code)
        assert {200, 400} <= statuses
        client.put(POINTS, json={"points": [{"id": 1, "vector": {"dense": [1.0, 2.0, 3.0, 4.0]}}]})
        before = found(client)
        owner.kill()
        owner.start()
        assert found(client) == before


def bodies() -> list[tuple[str, str, dict[str, Any]]]:
    """Valid requests to start from."""
    dense, sparse = [0.1, 0.2, 0.3, 0.4], {"indices": [1, 2, 3], "values": [1.0, 0.5, 0.25]}
    fence = {"must": [{"key": "generation", "range": {"lt": 3}}], "must_not": [{"has_id": [5, UUID]}]}
    upsert = {
        "points": [
            {"id": UUID, "vector": {"dense": dense, "sparse": sparse}, "payload": {"generation": 2, "tags": ["a"]}},
            {"id": 5, "vector": {}, "payload": {"generation": 2, "buried": True}},
        ],
        "update_filter": fence,
    }
    change = {"payload": {"generation": 4}, "filter": fence}
    query = {
        "prefetch": [
            {"query": dense, "using": "dense", "limit": 5, "filter": {"must": [{"key": "a", "match": {"any": [1]}}]}},
            {"query": sparse, "using": "sparse", "limit": 5},
        ],
        "query": {"rrf": {"k": 2}},
        "limit": 3,
        "offset": 1,
        "with_payload": {"include": ["generation"]},
        "with_vector": ["dense"],
        "score_threshold": 0.1,
    }
    return [
        ("PUT", POINTS, upsert),
        ("POST", f"{POINTS}/batch", {"operations": [{"upsert": upsert}, {"set_payload": change}]}),
        ("POST", f"{POINTS}/payload", change),
        ("POST", f"{POINTS}/query", query),
        ("POST", f"{POINTS}/query/batch", {"searches": [query, query]}),
        ("POST", f"{POINTS}/scroll", {"limit": 2, "offset": UUID, "filter": fence, "with_vector": True}),
        ("POST", f"{POINTS}/delete", {"points": [5]}),
        ("PUT", "/collections/c/index", {"field_name": "tags", "field_schema": "keyword"}),
        ("PUT", "/collections/e", {"vectors": {"v": {"size": 3, "distance": "Cosine"}}}),
    ]


def mutate(value: Any, chance: random.Random) -> Any:
    """Break one random place of a JSON value."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(list(value))
        if chance.random() < 0.08:
            value[chance.choice(["", "x", "filter", "points", "vector"])] = value.pop(key)
        else:
            value[key] = mutate(value[key], chance)
        return value
    if isinstance(value, list) and value and chance.random() < 0.85:
        place = chance.randrange(len(value))
        match chance.randrange(4):
            case 0:
                value.insert(place, value[place])
            case 1:
                del value[place]
            case _:
                value[place] = mutate(value[place], chance)
        return value
    return chance.choice(
        [None, True, 0, -1, 1.5, 2**31, 2**63, 2**64 - 1, 1e308, -1e-308, "", "x", "a.b[", "\x00", UUID, [], {}, [[]]]
    )
