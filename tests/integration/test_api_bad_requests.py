"""Every bad request gets its exact status and a problem document; nothing of it is kept, and never is it a 500."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.support.api_world import ApiWorld, open_api_world
from tests.support.postgres import PostgresServer

DOCUMENTS = "/v1/corpora/known/documents"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Bad:
    """One bad request and its answer."""

    claim: str
    status: int
    method: str
    path: str
    body: Any = None
    """Bytes as they are, other values as JSON; None for no body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    says: str = ""
    """What the detail must hold."""

    def __str__(self) -> str:
        return self.claim.replace(" ", "-")


def ask(**fields: Any) -> dict[str, Any]:
    return {"corpus": "known", "query": "Paris", **fields}


def one(**fields: Any) -> dict[str, Any]:
    return {"documents": [{"id": "a", "text": "x", **fields}]}


UNKNOWN = [
    Bad("no such address", 404, "GET", "/v2/corpora"),
    Bad("an address with a trailing slash", 404, "GET", "/v1/corpora/"),
    Bad("an encoded slash is no path", 404, "GET", "/v1%2Fcorpora"),
    Bad("a method that is not taken", 405, "PATCH", "/v1/corpora/known"),
    Bad("a document cannot be posted", 405, "POST", f"{DOCUMENTS}/a", {}),
    Bad("an unknown corpus", 404, "GET", "/v1/corpora/unknown", says="unknown"),
    Bad("a corpus name with NUL", 404, "GET", "/v1/corpora/%00"),
    Bad("a corpus name with a slash", 404, "GET", "/v1/corpora/a%2Fdocuments%2Fb"),
    Bad("dropping an unknown corpus", 404, "DELETE", "/v1/corpora/unknown"),
    Bad("documents of an unknown corpus", 404, "GET", "/v1/corpora/unknown/documents"),
    Bad("a document of an unknown corpus", 404, "GET", "/v1/corpora/unknown/documents/a"),
    Bad("deleting from an unknown corpus", 404, "DELETE", "/v1/corpora/unknown/documents", {"ids": ["a"]}),
    Bad("an unknown document", 404, "GET", f"{DOCUMENTS}/unknown", says="unknown"),
    Bad("a document that is deleted", 404, "GET", f"{DOCUMENTS}/deleted"),
    Bad("a run id that is none", 404, "GET", "/v1/runs/nope"),
    Bad("a run id with NUL", 404, "GET", "/v1/runs/%00/errors"),
    Bad("an unknown run", 404, "GET", "/v1/runs/01900000-0000-7000-8000-000000000000"),
    Bad("errors of an unknown run", 404, "GET", "/v1/runs/01900000-0000-7000-8000-000000000000/errors"),
    Bad("runs of an unknown corpus", 404, "GET", "/v1/runs?corpus=unknown"),
    Bad("a question to an unknown corpus", 404, "POST", "/v1/retrieve", ask(corpus="unknown")),
    Bad("a question to a corpus with NUL", 404, "POST", "/v1/retrieve", ask(corpus="a\0")),
    Bad("clearing an unknown corpus", 404, "DELETE", "/v1/cache?refill=false&corpus=unknown"),
]

ADDRESSES = [
    Bad("bytes that are not UTF-8 in an id", 422, "GET", f"{DOCUMENTS}/%FF"),
    Bad("bytes that are not UTF-8 in a corpus", 422, "GET", "/v1/corpora/%C3%28"),
    Bad("NUL in an id", 422, "GET", f"{DOCUMENTS}/%00", says="NUL"),
    Bad("an empty id", 422, "GET", f"{DOCUMENTS}/"),
    Bad("an id of white space", 422, "GET", f"{DOCUMENTS}/%20"),
    Bad("an id over 512 bytes", 413, "GET", f"{DOCUMENTS}/{'x' * 513}", says="512"),
    Bad("a limit of nothing", 422, "GET", f"{DOCUMENTS}?limit=0", says="limit"),
    Bad("a limit too large", 422, "GET", f"{DOCUMENTS}?limit=1001"),
    Bad("a limit that is no number", 422, "GET", "/v1/runs?limit=ten"),
    Bad("a limit of thousands of digits", 422, "GET", f"/v1/runs?limit={'9' * 5000}"),
    Bad("an unknown state", 422, "GET", f"{DOCUMENTS}?state=lost", says="state"),
    Bad("a page after NUL", 422, "GET", f"{DOCUMENTS}?after=%00", says="after"),
    Bad("a page of runs after no run", 422, "GET", "/v1/runs?after=x"),
    Bad("a refill that is neither yes nor no", 422, "DELETE", "/v1/cache?refill=perhaps", says="refill"),
]

DOCUMENT_BODIES = [
    Bad("a corpus name that is none", 422, "PUT", "/v1/corpora/Bad.Name/documents", one(), says="Bad.Name"),
    Bad("a corpus name over 63 characters", 422, "PUT", f"/v1/corpora/{'a' * 64}/documents", one()),
    Bad("no body", 422, "PUT", DOCUMENTS, says="body"),
    Bad("a body that is not JSON", 422, "PUT", DOCUMENTS, b"{", says="not JSON"),
    Bad("a body that is not UTF-8", 422, "PUT", DOCUMENTS, b'{"documents":[{"id":"\xff","text":""}]}'),
    Bad("a body that is a list", 422, "PUT", DOCUMENTS, []),
    Bad("a body nested without end", 422, "PUT", DOCUMENTS, b"[" * 20_000),
    Bad("documents that are no list", 422, "PUT", DOCUMENTS, {"documents": {}}, says="documents"),
    Bad("no documents", 422, "PUT", DOCUMENTS, {"documents": []}, says="empty"),
    Bad("too many documents", 413, "PUT", DOCUMENTS, {"documents": [{}] * 21}, says="20"),
    Bad("a document that is no object", 422, "PUT", DOCUMENTS, {"documents": ["a"]}, says="documents[0]"),
    Bad("a document without id", 422, "PUT", DOCUMENTS, {"documents": [{"text": "x"}]}, says="documents[0]"),
    Bad("a document without text", 422, "PUT", DOCUMENTS, {"documents": [{"id": "a"}]}, says="'a'"),
    Bad("text that is a number", 422, "PUT", DOCUMENTS, one(text=1), says="'a'"),
    Bad("an id that is a number", 422, "PUT", DOCUMENTS, one(id=1)),
    Bad("an id that is empty", 422, "PUT", DOCUMENTS, one(id="")),
    Bad("an id that is too long", 413, "PUT", DOCUMENTS, one(id="ü" * 257), says="512"),
    Bad("an id with a lone surrogate", 422, "PUT", DOCUMENTS, b'{"documents":[{"id":"\\udc00","text":""}]}'),
    Bad("text with NUL", 422, "PUT", DOCUMENTS, one(text="\0"), says="'a'"),
    Bad("text over the limit", 413, "PUT", DOCUMENTS, one(text="x" * 4097), says="'a'"),
    Bad("metadata that is a list", 422, "PUT", DOCUMENTS, one(metadata=[1]), says="metadata"),
    Bad("metadata nested too deeply", 422, "PUT", DOCUMENTS, one(metadata={"k": orjson.loads("[" * 40 + "]" * 40)})),
    Bad("metadata over the limit", 413, "PUT", DOCUMENTS, one(metadata={"k": "x" * 1100}), says="metadata"),
    Bad(
        "metadata with an integer of 65 bits",
        422,
        "PUT",
        DOCUMENTS,
        b'{"documents":[{"id":"a","text":"","metadata":{"n":18446744073709551617}}]}',
        says="64 bits",
    ),
    Bad("NaN", 422, "PUT", DOCUMENTS, b'{"documents":[{"id":"a","text":"","metadata":{"n":NaN}}]}'),
    Bad("infinity", 422, "PUT", DOCUMENTS, b'{"documents":[{"id":"a","text":"","metadata":{"n":1e999}}]}'),
    Bad("a number of thousands of digits", 422, "PUT", DOCUMENTS, b'{"documents":' + b"9" * 5000 + b"}"),
    Bad("one id twice", 422, "PUT", DOCUMENTS, {"documents": [{"id": "b", "text": "1"}] * 2}, says="'b'"),
    Bad("an idempotency key that is empty", 422, "PUT", DOCUMENTS, one(), {"Idempotency-Key": ""}),
    Bad("an idempotency key that is too long", 422, "PUT", DOCUMENTS, one(), {"Idempotency-Key": "k" * 256}),
    Bad("no ids to delete", 422, "DELETE", DOCUMENTS, {"ids": []}),
    Bad("deleting without a body", 422, "DELETE", DOCUMENTS),
    Bad("deleting an id that is a number", 422, "POST", f"{DOCUMENTS}/delete", {"ids": [1]}),
    Bad("deleting one id twice", 422, "DELETE", DOCUMENTS, {"ids": ["kept", "kept"]}, says="'kept'"),
    Bad("deleting with an unknown field", 422, "DELETE", DOCUMENTS, {"ids": ["kept"], "force": True}, says="force"),
]

CORPUS_BODIES = [
    Bad("a new corpus with a bad name", 422, "PUT", "/v1/corpora/-a", {}),
    Bad("a new corpus with NUL", 422, "PUT", "/v1/corpora/a%00", {}),
    Bad("another name in the body", 422, "PUT", "/v1/corpora/new", {"name": "other"}, says="other"),
    Bad("an unknown field of a corpus", 422, "PUT", "/v1/corpora/new", {"speck": "x"}, says="speck"),
    Bad("an unknown spec", 422, "PUT", "/v1/corpora/new", {"spec": "gpt9/plain"}, says="gpt9"),
    Bad("an unknown splitter", 422, "PUT", "/v1/corpora/new", {"splitter": "mine/1"}, says="splitter"),
    Bad("a splitter too small", 422, "PUT", "/v1/corpora/new", {"splitter": {"size_chars": 1}}),
    Bad("a splitter's size as text", 422, "PUT", "/v1/corpora/new", {"splitter": {"size_chars": "500"}}),
    Bad("another embedder", 422, "PUT", "/v1/corpora/new", {"embedder": "mine"}, says="embedder"),
    Bad("a schedule of six fields", 422, "PUT", "/v1/corpora/new", {"schedule": "0 0 3 * * *"}, says="5 fields"),
    Bad("a schedule that is none", 422, "PUT", "/v1/corpora/new", {"schedule": "61 3 * * *"}, says="minute"),
    Bad("a schedule that never comes", 422, "PUT", "/v1/corpora/new", {"schedule": "0 0 31 2 *"}),
    Bad("an unknown time zone", 422, "PUT", "/v1/corpora/new", {"timezone": "Mars/Olympus"}, says="Mars"),
    Bad("a time zone that is a path", 422, "PUT", "/v1/corpora/new", {"timezone": "../etc/passwd"}),
    Bad("another splitter of a filled corpus", 409, "PUT", "/v1/corpora/known", {"splitter": {"size_chars": 300}}),
    Bad("another spec of a corpus", 409, "PUT", "/v1/corpora/known", {"spec": "cl100k_base/plain"}),
]

QUESTIONS = [
    Bad("no question", 422, "POST", "/v1/retrieve", {"corpus": "known"}, says="query"),
    Bad("an empty question", 422, "POST", "/v1/retrieve", ask(query="  "), says="query"),
    Bad("a question over the limit", 422, "POST", "/v1/retrieve", ask(query="x" * 1025), says="1,024"),
    Bad("a question with NUL", 422, "POST", "/v1/retrieve", ask(query="a\0b"), says="query: holds a NUL"),
    Bad("a question with a lone surrogate", 422, "POST", "/v1/retrieve", b'{"corpus":"known","query":"\\ud800"}'),
    Bad("an unknown option", 422, "POST", "/v1/retrieve", ask(topk=3), says="topk"),
    Bad("top_k as text", 422, "POST", "/v1/retrieve", ask(top_k="2"), says="top_k"),
    Bad("top_k as a fraction", 422, "POST", "/v1/retrieve", ask(top_k=2.0), says="top_k"),
    Bad("top_k as a boolean", 422, "POST", "/v1/retrieve", ask(top_k=True), says="top_k"),
    Bad("top_k of nothing", 422, "POST", "/v1/retrieve", ask(top_k=0)),
    Bad("top_k over 100", 422, "POST", "/v1/retrieve", ask(top_k=101)),
    Bad("a negative budget", 422, "POST", "/v1/retrieve", ask(max_context_tokens=-1)),
    Bad("a budget of 70 bits", 422, "POST", "/v1/retrieve", ask(max_context_tokens=2**63)),
    Bad("an unknown order", 422, "POST", "/v1/retrieve", ask(order="random"), says="order"),
    Bad("include_text as a number", 422, "POST", "/v1/retrieve", ask(include_text=1)),
    Bad("a threshold as text", 422, "POST", "/v1/retrieve", ask(score_threshold="0.5")),
    Bad("a filter that is a list", 422, "POST", "/v1/retrieve", ask(filter=["a"]), says="filter"),
    Bad("a filter by an object", 422, "POST", "/v1/retrieve", ask(filter={"a": {"gt": 1}}), says="filter"),
    Bad("a filter by nothing", 422, "POST", "/v1/retrieve", ask(filter={"a": None})),
    Bad("a filter by an empty key", 422, "POST", "/v1/retrieve", ask(filter={"": 1})),
    Bad("a filter by a quoted key", 422, "POST", "/v1/retrieve", ask(filter={'a"b': 1})),
    Bad(
        "a filter of 65 bits",
        422,
        "POST",
        "/v1/retrieve",
        b'{"corpus":"known","query":"x","filter":{"a":' + b"9" * 30 + b"}}",
    ),
    Bad("no questions at all", 422, "POST", "/v1/retrieve/batch", {"queries": []}),
    Bad("too many questions", 413, "POST", "/v1/retrieve/batch", {"queries": [ask()] * 5}, says="4"),
    Bad(
        "a bad question among good ones",
        422,
        "POST",
        "/v1/retrieve/batch",
        {"queries": [ask(), ask(top_k="1")]},
        says="queries[1].top_k",
    ),
]

GUARDS = [
    Bad("a form", 415, "PUT", DOCUMENTS, b"documents=1", {"Content-Type": "application/x-www-form-urlencoded"}),
    Bad("JSON that says it is text", 415, "POST", "/v1/retrieve", b"{}", {"Content-Type": "text/plain"}),
    Bad("JSON in another charset", 415, "PUT", DOCUMENTS, b"{}", {"Content-Type": "application/json; charset=utf-16"}),
    Bad("a deletion as a form", 415, "DELETE", DOCUMENTS, b"ids=1", {"Content-Type": "text/plain"}),
    Bad("a body over the limit", 413, "PUT", DOCUMENTS, b" " * 65_537, says="65,536"),
    Bad("a foreign host", 403, "GET", "/healthz", None, {"Host": "evil.example"}),
    Bad(
        "a host that only begins like this machine", 403, "GET", "/v1/corpora", None, {"Host": "127.0.0.1.evil.example"}
    ),
    Bad("a foreign origin", 403, "GET", "/v1/corpora", None, {"Origin": "https://evil.example"}),
    Bad("an origin without a name", 403, "POST", "/v1/stats/reset", None, {"Origin": "null"}),
]

ALL = [*UNKNOWN, *ADDRESSES, *DOCUMENT_BODIES, *CORPUS_BODIES, *QUESTIONS, *GUARDS]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiWorld]:
    """Databases differ in what they refuse: NUL, numbers and text out of range."""
    url = None
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.url(server.create_database())
    with open_api_world(tmp_path_factory.mktemp("api"), database_url=url) as started:
        started.serve("known", {"kept": "Paris is the capital of France.", "deleted": "Gone."})
        started.delete("known", ["deleted"])
        started.worker.run_pending_jobs()
        yield started


@pytest.mark.parametrize("bad", ALL, ids=str)
def test_a_bad_request_gets_its_problem(world: ApiWorld, bad: Bad) -> None:
    content = bad.body if bad.body is None or isinstance(bad.body, bytes) else orjson.dumps(bad.body)
    headers = {**({} if content is None else JSON), **bad.headers}
    response = world.client.request(bad.method, bad.path, content=content, headers=headers)
    assert response.status_code == bad.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == bad.status
    assert problem["type"].startswith("urn:forefill:problem:")
    assert problem["title"]
    assert problem["detail"]
    assert bad.says in problem["detail"]


def test_bad_requests_leave_nothing(world: ApiWorld) -> None:
    for bad in ALL:
        content = bad.body if bad.body is None or isinstance(bad.body, bytes) else orjson.dumps(bad.body)
        headers = {**({} if content is None else JSON), **bad.headers}
        world.client.request(bad.method, bad.path, content=content, headers=headers)
    assert [each["name"] for each in world.get("/v1/corpora")["corpora"]] == ["known"]
    assert [each["id"] for each in world.get(DOCUMENTS)["documents"]] == ["kept"]
    assert len(world.get("/v1/runs")["runs"]) == 2


def test_text_as_long_as_allowed_is_accepted(world: ApiWorld) -> None:
    body = {"documents": [{"id": "x" * 512, "text": "x" * 4096, "unknown": 1, "metadata": None}]}
    assert world.client.put("/v1/corpora/limits/documents", json=body).status_code == 202
    world.client.delete("/v1/corpora/limits")


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json", "/v1/corpora", f"{DOCUMENTS}/kept"]
)
def test_head_is_answered_as_get_without_the_body(world: ApiWorld, path: str) -> None:
    shown, asked = world.client.get(path), world.client.head(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == shown.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
        ("POST", DOCUMENTS, {"GET", "HEAD", "PUT", "DELETE"}),
        ("PATCH", "/v1/corpora/known", {"GET", "HEAD", "PUT", "DELETE"}),
        ("GET", "/v1/retrieve", {"POST"}),
        ("HEAD", "/v1/retrieve", {"POST"}),
        ("DELETE", "/v1/runs", {"GET", "HEAD", "POST"}),
    ],
)
def test_a_405_names_every_method_of_the_address(world: ApiWorld, method: str, path: str, allowed: set[str]) -> None:
    response = world.client.request(method, path)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == allowed
