"""What callers may do: one table from addresses to scopes, and the caller of one request.

`admission` finds out who asks. Then `JsonRoute` calls `authorize` before a body is read: the route's line in `SCOPES`
says which scopes suffice, and a `{corpus}` in its address must be one that the key is for. A route without a line is
refused while there are keys, and a test walks all routes for it.

What no address says is left to handlers, which take a `CurrentCaller` (see `dependencies`): a corpus in a body or query
(`require_corpus`), work on no corpus in particular (`require_every_corpus`), lists (`corpora`), runs (`see_run`).

A foreign corpus is 403 whether it exists or not, and a foreign run is 404 like one that never was: no answer tells
what exists elsewhere.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from api.paths import decode_segment
from pipeline.documents.access import AccessScope, ApiKey
from pipeline.documents.validation import shown
from pipeline.errors import Forbidden, NotFound

if TYPE_CHECKING:
    from starlette.types import Scope

    from pipeline.jobs.run_reports import RunReport

QUERY, INGEST, ADMIN = AccessScope.QUERY, AccessScope.INGEST, AccessScope.ADMIN

OPEN: frozenset[AccessScope] = frozenset()
"""For everybody, with or without a key: says nothing of what is stored."""

ANY_KEY = frozenset(AccessScope)

SCOPES: Mapping[str, frozenset[AccessScope]] = {
    "GET /healthz": OPEN,
    "GET /readyz": OPEN,
    "GET /docs": OPEN,
    "GET /docs/oauth2-redirect": OPEN,
    "GET /openapi.json": OPEN,
    "GET /": frozenset({QUERY, ADMIN}),
    "GET /metrics": frozenset({QUERY, ADMIN}),
    "GET /v1/stats": ANY_KEY,
    "POST /v1/stats/reset": frozenset({ADMIN}),
    "DELETE /v1/cache": frozenset({ADMIN}),
    "GET /v1/corpora": ANY_KEY,
    "GET /v1/corpora/{corpus}": ANY_KEY,
    "PUT /v1/corpora/{corpus}": frozenset({ADMIN}),
    "DELETE /v1/corpora/{corpus}": frozenset({ADMIN}),
    "GET /v1/corpora/{corpus}/documents": frozenset({QUERY}),
    "GET /v1/corpora/{corpus}/documents/{document_id:path}": frozenset({QUERY}),
    "PUT /v1/corpora/{corpus}/documents": frozenset({INGEST}),
    "DELETE /v1/corpora/{corpus}/documents": frozenset({INGEST}),
    "POST /v1/corpora/{corpus}/documents/delete": frozenset({INGEST}),
    "POST /v1/runs": frozenset({ADMIN}),
    "GET /v1/runs": frozenset({INGEST, ADMIN}),
    "GET /v1/runs/{run_id}": frozenset({INGEST, ADMIN}),
    "GET /v1/runs/{run_id}/errors": frozenset({INGEST, ADMIN}),
    "POST /v1/runs/{run_id}/cancel": frozenset({ADMIN}),
    "POST /v1/runs/{run_id}/pause": frozenset({ADMIN}),
    "POST /v1/runs/{run_id}/resume": frozenset({ADMIN}),
    "POST /v1/runs/{run_id}/retry": frozenset({INGEST, ADMIN}),
    "GET /v1/specs": ANY_KEY,
    "GET /v1/specs/{spec_id:path}": ANY_KEY,
    "POST /v1/specs": frozenset({ADMIN}),
    "POST /v1/specs/{spec_id:path}/build": frozenset({ADMIN}),
    "POST /v1/specs/{spec_id:path}/activate": frozenset({ADMIN}),
    "POST /v1/specs/{spec_id:path}/rollback": frozenset({ADMIN}),
    "POST /v1/specs/{spec_id:path}/enable": frozenset({ADMIN}),
    "DELETE /v1/specs/{spec_id:path}": frozenset({ADMIN}),
    "POST /v1/retrieve": frozenset({QUERY}),
    "POST /v1/retrieve/batch": frozenset({QUERY}),
    "POST /v1/generate": frozenset({QUERY}),
}
"""Method and address of every route to the scopes of which one suffices."""

OPEN_FOLDER = "/static-offline-docs/"
"""Scripts and styles of `/docs`."""

_CALLER = "forefill.caller"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request."""

    key: ApiKey | None
    """Their key; None while there are no keys, and whoever is on this machine may do everything."""

    @property
    def principal(self) -> str:
        """Whose Idempotency-Keys these are: the key's id, empty without keys."""
        return "" if self.key is None else self.key.id

    @property
    def corpora(self) -> list[str] | None:
        """Names of the only corpora that answers may speak of; None for all."""
        return None if self.key is None or self.key.corpora is None else sorted(self.key.corpora)

    def reaches(self, corpus: str) -> bool:
        """Return whether answers may speak of a corpus."""
        return self.key is None or self.key.reaches(corpus)

    def require_scope(self, scopes: Collection[AccessScope]) -> None:
        """Go on only with one of these scopes.

        Raises:
            Forbidden: The key has none of them.
        """
        if self.key is not None and not any(self.key.allows(scope) for scope in scopes):
            named = " or ".join(scope for scope in AccessScope if scope in scopes)
            raise Forbidden(f"this API key lacks the scope: {named or 'none grants this address'}")

    def require_corpus(self, corpus: str) -> None:
        """Go on only if the key is for a corpus, which need not exist.

        Raises:
            Forbidden: It is not.
        """
        if not self.reaches(corpus):
            raise Forbidden(f"this API key is not for corpus {shown(corpus)}")

    def require_every_corpus(self) -> None:
        """Go on only if the key is for all corpora.

        Raises:
            Forbidden: It is for some.
        """
        if self.corpora is not None:
            raise Forbidden("this concerns all corpora, and this API key is for some: name one, or use a key for all")

    def see_run(self, report: "RunReport") -> "RunReport":
        """Return a run.

        Raises:
            NotFound: The key is not for its corpus; said like of a run that never was.
        """
        if not self.reaches(report.corpus):
            raise NotFound(f"there is no run {report.id!r}")
        return report


LOCAL = Caller(None)
"""Whoever is on this machine, while there are no keys."""

NOBODY = Caller(ApiKey("", "", secret_hash=b"", scopes=frozenset(), corpora=frozenset(), created_at=0, revoked_at=None))
"""Who comes without a key to what is open to everybody; may do nothing else."""


def set_caller(scope: "Scope", caller: Caller) -> "Scope":
    """Return a request's scope with its caller."""
    return {**scope, _CALLER: caller}


def caller_of(request: Request) -> Caller:
    """Return who sent a request; without `admission` before it there is nobody, and that is an error."""
    caller: Caller = request.scope[_CALLER]
    return caller


async def current_caller(request: Request) -> Caller:
    """The same for the framework, which would call a plain function in a thread."""
    return caller_of(request)


def is_open(method: str, path: str) -> bool:
    """Return whether an address is for everybody.

    Args:
        method: Of the request.
        path: As sent.
    """
    read = "GET" if method == "HEAD" else method
    return SCOPES.get(f"{read} {path}") == OPEN or (read == "GET" and path.startswith(OPEN_FOLDER))


def authorize(request: Request, address: str) -> None:
    """Check scope and corpus before anything of a request is read.

    Args:
        request: With its caller.
        address: The route's path, placeholders and all.

    Raises:
        Forbidden: The key does not grant it.
        InvalidInput: The corpus in the address is not UTF-8.
    """
    scopes = SCOPES.get(f"{request.method} {address}")
    if scopes == OPEN:
        return
    caller = caller_of(request)
    caller.require_scope(scopes or ())
    if "corpus" in request.path_params:
        caller.require_corpus(decode_segment(request.path_params["corpus"]))
