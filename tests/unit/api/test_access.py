"""Every route says who may call it, and a caller may do what the key says."""

from collections.abc import Iterator

import pytest
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.routing import Mount, Route

from api.access import ANY_KEY, LOCAL, OPEN, OPEN_FOLDER, SCOPES, Caller, authorize, is_open, set_caller
from api.app import create_app
from api.bodies import JsonRoute
from api.routes import ROUTERS
from pipeline.documents.access import AccessScope, ApiKey
from pipeline.errors import Forbidden
from pipeline.settings import Settings


def routes() -> Iterator[Route | Mount]:
    """Yield all routes: the routers', and what the framework adds by itself."""
    for router in ROUTERS:
        for route in router.routes:
            assert isinstance(route, Route | Mount), f"{route} is of a kind that this test does not know"
            yield route
    for route in create_app(Settings()).routes:
        if isinstance(route, Route | Mount):
            yield route
        else:
            assert route.original_router in ROUTERS, "a router that is not among ROUTERS"  # type: ignore[attr-defined]  # the framework's own class


def addresses(route: Route | Mount) -> list[str]:
    if isinstance(route, Mount):
        return [route.path]
    methods = (route.methods or set()) - {"HEAD"}
    return [f"{method} {route.path}" for method in sorted(methods)]


def test_every_route_declares_its_scopes() -> None:
    found = [address for route in routes() if not isinstance(route, Mount) for address in addresses(route)]
    assert len(found) > 15, "the walk finds no routes"
    undeclared = [address for address in found if address not in SCOPES]
    assert undeclared == [], "add these to SCOPES in api/access.py"


def test_the_only_mount_is_open_on_purpose() -> None:
    assert [f"{route.path}/" for route in routes() if isinstance(route, Mount)] == [OPEN_FOLDER]


def test_every_route_that_needs_a_scope_asks_for_it() -> None:
    asking = [route for route in routes() if isinstance(route, JsonRoute)]
    for route in routes():
        if not isinstance(route, Mount) and any(SCOPES.get(address) != OPEN for address in addresses(route)):
            assert isinstance(route, APIRoute)
            assert isinstance(route, JsonRoute), f"{route.path}: use route_class=JsonRoute"
    assert asking


def test_what_is_open_says_nothing_of_what_is_stored() -> None:
    opened = {address for address, scopes in SCOPES.items() if scopes == OPEN}
    assert opened == {
        "GET /healthz",
        "GET /readyz",
        "GET /docs",
        "GET /docs/oauth2-redirect",
        "GET /openapi.json",
    }
    assert not is_open("GET", "/never/declared")


def test_only_reading_is_for_any_key() -> None:
    assert [a for a, scopes in SCOPES.items() if scopes == ANY_KEY and not a.startswith("GET ")] == []


@pytest.mark.parametrize("scope", AccessScope)
def test_nothing_that_changes_documents_or_settings_is_for_a_key_that_only_asks(scope: AccessScope) -> None:
    writes = {a for a in SCOPES if a.split(" ")[0] in ("PUT", "DELETE") or a.endswith(("/delete", "/reset", "/runs"))}
    granted = {a for a, scopes in SCOPES.items() if scope in scopes and not a.startswith("GET ")}
    assert bool(granted & writes) is (scope is not AccessScope.QUERY)


def authorized(address: str, *, by: Caller, path_params: dict[str, str] | None = None) -> None:
    method, path = address.split(" ", 1)
    scope = {"type": "http", "method": method, "path": path, "headers": [], "path_params": path_params or {}}
    authorize(Request(set_caller(scope, by)), path)


def test_an_address_that_nobody_declared_is_refused_to_every_key() -> None:
    with pytest.raises(Forbidden):
        authorized("GET /v1/forgotten", by=caller(scopes=set(AccessScope), corpora=None))
    authorized("GET /v1/forgotten", by=LOCAL)


@pytest.mark.parametrize("address", SCOPES)
def test_every_declared_address_takes_its_scopes_and_no_others(address: str) -> None:
    for scope in AccessScope:
        asking = caller(scopes={scope}, corpora=None)
        if scope in SCOPES[address] or SCOPES[address] == OPEN:
            authorized(address, by=asking)
        else:
            with pytest.raises(Forbidden, match="scope"):
                authorized(address, by=asking)


@pytest.mark.parametrize("address", [address for address in SCOPES if "{corpus}" in address])
@pytest.mark.parametrize(("raw", "passes"), [("a", True), ("%61", True), ("b", False), ("a%2F", False), ("A", False)])
def test_a_corpus_in_an_address_must_be_one_of_the_keys(address: str, raw: str, *, passes: bool) -> None:
    asking = caller(scopes=set(AccessScope), corpora={"a"})
    if passes:
        authorized(address, by=asking, path_params={"corpus": raw})
    else:
        with pytest.raises(Forbidden, match="corpus"):
            authorized(address, by=asking, path_params={"corpus": raw})


def caller(*, scopes: set[AccessScope], corpora: set[str] | None) -> Caller:
    reached = None if corpora is None else frozenset(corpora)
    return Caller(ApiKey("id", "name", b"", frozenset(scopes), reached, created_at=0, revoked_at=None))


def test_one_of_the_scopes_suffices() -> None:
    asking = caller(scopes={AccessScope.QUERY}, corpora=None)
    asking.require_scope({AccessScope.QUERY, AccessScope.ADMIN})
    with pytest.raises(Forbidden, match="ingest or admin"):
        asking.require_scope({AccessScope.ADMIN, AccessScope.INGEST})
    with pytest.raises(Forbidden):
        asking.require_scope(())


def test_admin_does_not_include_asking() -> None:
    with pytest.raises(Forbidden):
        caller(scopes={AccessScope.ADMIN}, corpora=None).require_scope({AccessScope.QUERY})


def test_a_key_for_some_corpora_reaches_no_other_and_not_all() -> None:
    some = caller(scopes=set(AccessScope), corpora={"b", "a"})
    some.require_corpus("a")
    assert some.corpora == ["a", "b"]
    with pytest.raises(Forbidden, match="'c'"):
        some.require_corpus("c")
    with pytest.raises(Forbidden):
        some.require_every_corpus()


@pytest.mark.parametrize("every", [caller(scopes=set(), corpora=None), LOCAL])
def test_a_key_for_all_corpora_reaches_all(every: Caller) -> None:
    every.require_corpus("made-later")
    every.require_every_corpus()
    assert every.corpora is None


def test_this_machine_needs_no_scope_while_there_are_no_keys() -> None:
    LOCAL.require_scope(())
    assert LOCAL.principal == ""
