"""What callers can do over HTTP, on real stores."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.api_world import ApiWorld, open_api_world
from tests.support.polling import eventually
from tests.unit.tokenizers.reference import official

FRANCE = "Paris is the capital of France.\n\nIts tower was built in 1889."
ITALY = "Rome is the capital of Italy."


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    with open_api_world(tmp_path_factory.mktemp("api")) as started:
        yield started


@pytest.fixture
def corpus(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses."""
    return "c-" + hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:16]


def test_a_document_is_accepted_served_and_answers_a_question_from_the_cache(world: ApiWorld, corpus: str) -> None:
    accepted = world.put(corpus, {"france": FRANCE, "italy": ITALY})
    assert accepted["accepted"] == 2
    assert accepted["unchanged"] == 0
    assert [each["status"] for each in accepted["documents"]] == ["accepted", "accepted"]
    assert world.get(f"/v1/corpora/{corpus}/documents/france")["state"] == "pending"

    world.worker.run_pending_jobs()

    run = world.get(f"/v1/runs/{accepted['run_id']}")
    assert run["state"] == "succeeded"
    assert run["totals"]["done"] == run["totals"]["documents"] == 2
    document = world.get(f"/v1/corpora/{corpus}/documents/france")
    assert document["state"] == "served"
    assert document["generation"] == document["served_generation"] == 1
    assert [passage["cached"] for passage in document["passages"]] == [True]

    answer = world.retrieve(corpus, "What is the capital of France?", include_text=True)
    assert answer["token_ids"] == official("o200k_base").encode_ordinary(answer["prompt_text"])
    assert answer["passages"][0]["document_id"] == "france"
    assert {passage["source"] for passage in answer["passages"]} <= {"l1", "l2"}
    assert answer["metadata"]["cache_hit"] is True
    assert answer["metadata"]["doc_count"] == len(answer["passages"])
    assert answer["metadata"]["token_count"] == len(answer["token_ids"])


def test_an_equal_document_is_unchanged_and_queues_nothing(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE})
    again = world.put(corpus, {"a": FRANCE})
    assert (again["accepted"], again["unchanged"]) == (0, 1)
    assert again["documents"] == [{"id": "a", "generation": 1, "status": "unchanged"}]
    assert world.get(f"/v1/runs/{again['run_id']}")["state"] == "succeeded"
    assert world.worker.run_pending_jobs() == []


def test_an_edited_document_is_answered_with_its_new_tokens(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": "The door code is 1111."})
    world.serve(corpus, {"a": "The door code is 2222."})
    text = world.retrieve(corpus, "door code", include_text=True)["prompt_text"]
    assert "2222" in text
    assert "1111" not in text


@pytest.mark.parametrize("method", ["DELETE", "POST"])
def test_a_deleted_document_is_not_found_again(world: ApiWorld, corpus: str, method: str) -> None:
    corpus = f"{corpus}-{method.lower()}"
    world.serve(corpus, {"a": FRANCE, "b": ITALY})
    path = f"/v1/corpora/{corpus}/documents" + ("/delete" if method == "POST" else "")
    response = world.client.request(method, path, json={"ids": ["a", "never-there"]})
    assert response.status_code == 202
    assert {"accepted": 1, "unknown": 1}.items() <= response.json().items()
    world.worker.run_pending_jobs()
    assert world.client.get(f"/v1/corpora/{corpus}/documents/a").status_code == 404
    found = world.retrieve(corpus, "capital of France", top_k=10)["passages"]
    assert [passage["document_id"] for passage in found] == ["b"]


def test_a_refused_document_leaves_nothing_of_its_request(world: ApiWorld, corpus: str) -> None:
    body = {"documents": [{"id": "good", "text": "kept?"}, {"id": "bad", "text": "nul \0"}]}
    response = world.client.put(f"/v1/corpora/{corpus}/documents", json=body)
    assert response.status_code == 422
    assert "'bad'" in response.json()["detail"]
    assert world.client.get(f"/v1/corpora/{corpus}").status_code == 404


def test_lone_surrogates_are_refused_by_naming_the_document(world: ApiWorld, corpus: str) -> None:
    body = b'{"documents":[{"id":"good","text":"x"},{"id":"bad","text":"\\ud800"}]}'
    response = world.client.put(
        f"/v1/corpora/{corpus}/documents", content=body, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 422
    assert response.json()["item"] == "bad"
    assert "surrogate" in response.json()["detail"]


@pytest.mark.parametrize(
    "document_id",
    ["a/b/c", "delete", "../x", "trailing/", "ünï cödé", "100%", "%2F", "a?b=c#d", "line\nfeed", " x ", "a+b", "//"],
)
def test_any_id_is_found_under_its_encoded_address(world: ApiWorld, corpus: str, document_id: str) -> None:
    world.put(corpus, {document_id: "text"})
    encoded = "".join(f"%{byte:02X}" for byte in document_id.encode())
    assert world.get(f"/v1/corpora/{corpus}/documents/{encoded}")["id"] == document_id


def test_an_id_with_raw_slashes_is_found(world: ApiWorld, corpus: str) -> None:
    world.put(corpus, {"guide/intro/": "text"})
    assert world.get(f"/v1/corpora/{corpus}/documents/guide/intro/")["id"] == "guide/intro/"
    assert world.client.get(f"/v1/corpora/{corpus}/documents/guide/intro").status_code == 404


def test_documents_are_listed_in_pages_and_by_state(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {name: f"text of {name}" for name in "cab"})
    world.put(corpus, {"b": "changed"})
    first = world.get(f"/v1/corpora/{corpus}/documents?limit=2")
    assert [each["id"] for each in first["documents"]] == ["a", "b"]
    assert first["next"] == "b"
    second = world.get(f"/v1/corpora/{corpus}/documents?limit=2&after=b")
    assert [each["id"] for each in second["documents"]] == ["c"]
    assert second["next"] is None
    stale = world.get(f"/v1/corpora/{corpus}/documents?state=stale")["documents"]
    assert [(each["id"], each["generation"], each["served_generation"]) for each in stale] == [("b", 2, 1)]


def test_a_repeated_idempotency_key_gets_the_first_answer(world: ApiWorld, corpus: str) -> None:
    path, key = f"/v1/corpora/{corpus}/documents", {"Idempotency-Key": "k1"}
    body = {"documents": [{"id": "a", "text": "one"}]}
    first = world.client.put(path, json=body, headers=key)
    assert first.status_code == 202
    assert world.client.put(path, json=body, headers=key).json() == first.json()
    other = world.client.put(path, json={"documents": [{"id": "a", "text": "two"}]}, headers=key)
    assert other.status_code == 409
    assert world.get(f"{path}/a")["generation"] == 1
    deletion = {"ids": ["a"]}
    gone = world.client.request("DELETE", path, json=deletion, headers={"Idempotency-Key": "k2"})
    again = world.client.post(f"{path}/delete", json=deletion, headers={"Idempotency-Key": "k2"})
    assert gone.json() == again.json()


def test_a_filter_and_a_budget_narrow_the_answer(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"fr": FRANCE}, metadata={"lang": "fr", "year": 1889})
    world.serve(corpus, {"it": ITALY}, metadata={"lang": "it", "year": 753})
    only = world.retrieve(corpus, "capital", filter={"lang": ["it", "de"]})
    assert [passage["document_id"] for passage in only["passages"]] == ["it"]
    assert world.retrieve(corpus, "capital", filter={"lang": "de"})["passages"] == []
    assert world.retrieve(corpus, "capital", filter={"year": 1889})["passages"][0]["document_id"] == "fr"
    none = world.retrieve(corpus, "capital", max_context_tokens=1, include_text=True)
    assert (none["token_ids"], none["passages"], none["prompt_text"]) == ([], [], "")
    assert none["metadata"]["truncated"] is True


def test_a_batch_answers_in_order_and_names_what_is_wrong(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"fr": FRANCE, "it": ITALY})
    questions = [{"corpus": corpus, "query": query, "top_k": 1} for query in ("Paris tower", "Rome")]
    answer = world.client.post("/v1/retrieve/batch", json={"queries": questions}).json()
    assert [result["passages"][0]["document_id"] for result in answer["results"]] == ["fr", "it"]
    empty = world.client.post("/v1/retrieve/batch", json={"queries": [*questions, {"corpus": corpus, "query": " "}]})
    assert empty.status_code == 422
    assert empty.json()["item"] == "queries[2]"
    unknown = world.client.post("/v1/retrieve/batch", json={"queries": [{"corpus": "nowhere", "query": "x"}]})
    assert unknown.status_code == 404


def test_a_corpus_is_made_shown_changed_and_dropped(world: ApiWorld, corpus: str) -> None:
    path = f"/v1/corpora/{corpus}"
    made = world.client.put(path, json={"splitter": {"size_chars": 500}, "schedule": "30  3 * * *"})
    assert made.status_code == 201
    assert made.json()["schedule"] == "30 3 * * *"
    assert "/chars-500/" in made.json()["splitter"]
    assert world.client.put(path, json=world.get(path)).status_code == 200
    changed = world.client.put(path, json={"schedule": None, "timezone": "Europe/Berlin"}).json()
    assert (changed["schedule"], changed["timezone"]) == (None, "Europe/Berlin")
    world.serve(corpus, {"a": FRANCE})
    assert world.client.put(path, json={"splitter": {"size_chars": 600}}).status_code == 409
    assert world.client.put(path, json={"spec": "cl100k_base/plain"}).status_code == 409
    assert corpus in [each["name"] for each in world.get("/v1/corpora?limit=1000")["corpora"]]
    assert world.client.delete(path).status_code == 202
    assert world.client.get(path).status_code == 404
    assert world.client.post("/v1/retrieve", json={"corpus": corpus, "query": "x"}).status_code == 404
    world.serve(corpus, {"b": ITALY})
    found = world.retrieve(corpus, "capital")["passages"]
    assert [passage["document_id"] for passage in found] == ["b"]


def test_a_corpus_uses_the_spec_it_was_made_with(world: ApiWorld, corpus: str) -> None:
    world.client.put(f"/v1/corpora/{corpus}", json={"spec": "cl100k_base/plain"})
    world.serve(corpus, {"a": FRANCE})
    assert world.retrieve(corpus, "Paris")["metadata"]["spec"] == "cl100k_base/plain"


def test_runs_are_listed_newest_first(world: ApiWorld, corpus: str) -> None:
    first = world.serve(corpus, {"a": "one"})["run_id"]
    second = world.put(corpus, {"a": "two"})["run_id"]
    listed = world.get(f"/v1/runs?corpus={corpus}")["runs"]
    assert [run["id"] for run in listed] == [second, first]
    page = world.get(f"/v1/runs?corpus={corpus}&limit=1")
    assert page["next"] == second
    assert [run["id"] for run in world.get(f"/v1/runs?corpus={corpus}&after={page['next']}")["runs"]] == [first]
    assert [run["id"] for run in world.get(f"/v1/runs?corpus={corpus}&unfinished=true")["runs"]] == [second]
    assert world.get(f"/v1/runs/{first}/errors") == {"errors": [], "next": None}


def test_statistics_count_and_begin_anew(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE})
    assert world.client.post("/v1/stats/reset").status_code == 200
    world.retrieve(corpus, "Paris")
    stats = world.get("/v1/stats")
    assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (1, 0, 100.0)
    assert stats["coverage"][corpus] == {"o200k_base/plain": 1.0}
    assert set(stats["queues"]) == {"interactive", "bulk", "maintenance"}
    assert stats["cache_size_mb"] > 0
    world.client.post("/v1/stats/reset")
    assert world.get("/v1/stats")["hits"] == 0


def test_a_cleared_corpus_misses_once_and_answers_the_same(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE + corpus})
    before = world.retrieve(corpus, "Paris")
    with world.cache.client() as client:
        client.set("someone:else", "1")
    assert world.client.delete(f"/v1/cache?corpus={corpus}&refill=false").json() == {"cleared": 1, "runs": []}
    assert world.get("/v1/stats")["coverage"][corpus] == {"o200k_base/plain": 0.0}
    assert world.get(f"/v1/corpora/{corpus}/documents/a")["passages"][0]["cached"] is False
    missed = world.retrieve(corpus, "Paris")
    assert [passage["source"] for passage in missed["passages"]] == ["miss"]
    assert missed["token_ids"] == before["token_ids"]
    eventually(lambda: world.get(f"/v1/corpora/{corpus}/documents/a")["passages"][0]["cached"])
    assert world.retrieve(corpus, "Paris")["metadata"]["cache_hit"] is True
    assert world.client.delete("/v1/cache?refill=false").json()["cleared"] >= 1
    with world.cache.client() as client:
        assert client.get("someone:else") == b"1"


def test_a_cleared_cache_is_filled_again_by_runs_that_are_named(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE + corpus})
    one = world.client.delete(f"/v1/cache?corpus={corpus}").json()
    assert (one["cleared"], len(one["runs"])) == (1, 1)
    world.worker.run_pending_jobs()
    run = world.get(f"/v1/runs/{one['runs'][0]}")
    assert (run["kind"], run["corpus"], run["state"], run["totals"]["done"]) == ("backfill", corpus, "succeeded", 1)
    assert world.get(f"/v1/corpora/{corpus}/documents/a")["passages"][0]["cached"] is True
    everything = world.client.delete("/v1/cache").json()
    assert everything["cleared"] >= 1
    assert world.get("/v1/stats")["coverage"][corpus] == {"o200k_base/plain": 0.0}
    world.worker.run_pending_jobs()
    assert world.get("/v1/stats")["coverage"][corpus] == {"o200k_base/plain": 1.0}
    assert world.client.delete("/v1/cache?corpus=nobody").status_code == 404


def test_a_corpus_says_when_its_schedule_is_due(world: ApiWorld, corpus: str) -> None:
    body = {"schedule": "0 2 * * *", "timezone": "Europe/Berlin"}
    made = world.client.put(f"/v1/corpora/{corpus}", json=body).json()
    assert made["next_run_at"].endswith(":00:00.000Z")
    assert world.get(f"/v1/corpora/{corpus}") == made
    assert world.client.put(f"/v1/corpora/{corpus}", json={"schedule": None}).json()["next_run_at"] is None
    for wrong in ({"schedule": "0 25 * * *"}, {"timezone": "Europe/Atlantis"}):
        refused = world.client.put(f"/v1/corpora/{corpus}", json=wrong)
        assert refused.status_code == 422
        assert next(iter(wrong.values())) in refused.json()["detail"]


def test_without_the_cache_answers_are_the_same_and_readiness_says_so(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE})
    before = world.retrieve(corpus, "Paris")
    world.cache.kill()
    try:
        ready = world.get("/readyz")
        assert ready["degraded"] == ["cache", "broker"], "one server is both here"
        assert ready["checks"]["cache"]["ok"] is False
        assert world.retrieve(corpus, "Paris")["token_ids"] == before["token_ids"]
        assert world.get("/v1/stats")["cache_size_mb"] is None
        assert world.get(f"/v1/corpora/{corpus}/documents/a")["passages"][0]["cached"] is False
        cleared = world.client.delete("/v1/cache?refill=false")
        assert cleared.status_code == 503
        assert int(cleared.headers["Retry-After"]) >= 1
    finally:
        world.cache.start()


def test_readiness_says_that_cache_and_broker_refuse_writes(world: ApiWorld) -> None:
    with world.cache.client() as server:
        server.config_set("maxmemory", "1")
        try:
            ready = world.get("/readyz")
        finally:
            server.config_set("maxmemory", "0")
    assert (ready["ready"], ready["degraded"]) == (True, ["cache", "broker"])
    assert "cache refuses writes: it is full" in ready["checks"]["cache"]["reason"]
    assert "broker refuses writes: it is full" in ready["checks"]["broker"]["reason"]
    assert world.get("/readyz")["degraded"] == []


def test_metrics_show_hits_and_coverage(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE})
    world.retrieve(corpus, "Paris")
    text = world.client.get("/metrics").text
    assert f'forefill_coverage{{corpus="{corpus}",spec="o200k_base/plain"}} 1.0' in text
    assert "token_cache_hits_total" in text
    assert 'forefill_queue_oldest_age_seconds{queue="interactive"}' in text


def test_the_status_page_loads_nothing_and_shows_corpora(world: ApiWorld, corpus: str) -> None:
    world.serve(corpus, {"a": FRANCE})
    page = world.client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert corpus in page.text
    for loaded in ("<script", "src=", "<link", "@import"):
        assert loaded not in page.text


def test_readiness_names_every_dependency(world: ApiWorld) -> None:
    ready = world.get("/readyz")
    assert set(ready["checks"]) == {"database", "cache", "broker", "qdrant", "configuration", "golden_ids"}
    assert world.get("/healthz") == {"alive": True}


def test_the_docs_load_nothing_from_elsewhere(world: ApiWorld) -> None:
    page = world.client.get("/docs").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert loaded
    for address in loaded:
        assert address.startswith("/")
        assert world.client.get(address).status_code == 200


def test_openapi_describes_every_address(world: ApiWorld) -> None:
    paths: dict[str, Any] = world.get("/openapi.json")["paths"]
    assert set(paths["/v1/corpora/{corpus}/documents"]) == {"get", "put", "delete"}
    assert {"/v1/retrieve", "/v1/retrieve/batch", "/v1/runs/{run_id}/errors", "/v1/cache", "/readyz"} <= set(paths)
