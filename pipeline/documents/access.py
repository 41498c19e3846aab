"""API keys: who may ask, feed and govern which corpora.

A key reads `ff_<id>_<secret>` and is shown once, when it is made. SQL holds the SHA-256 hash of the secret and nothing
else of it: the secret is 256 random bits, so there is nothing to guess that a slower hash would protect.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, SQLColumnExpression, case, delete, insert, select, update

from pipeline.database import now_ms, rows_affected
from pipeline.documents.tables import ApiKeyRow
from pipeline.documents.validation import check_corpus_name, shown
from pipeline.errors import Conflict, InvalidInput, NotFound

MAX_KEY_CHARACTERS = 256
"""Longer texts are no keys, and are not hashed."""

EVERY_CORPUS = "*"

MAX_CORPORA = 500
"""Corpora one key can name; every answer that is filtered by it compares them."""

_MAX_NAME_CHARACTERS = 100
_ID_BYTES = 8
_SECRET_BYTES = 32
_KEY = re.compile(rf"ff_([0-9a-f]{{{2 * _ID_BYTES}}})_([A-Za-z0-9_-]+)")
_NO_HASH = bytes(32)


class AccessScope(StrEnum):
    """What a key allows; none of them includes another."""

    QUERY = "query"
    """Asking, and reading documents."""
    INGEST = "ingest"
    """Changing documents, and following their runs."""
    ADMIN = "admin"
    """Corpora, runs, specs, the cache and statistics."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as its row says."""

    id: str
    name: str
    secret_hash: bytes = field(repr=False)
    """SHA-256 of the secret, 32 bytes."""
    scopes: frozenset[AccessScope]
    corpora: frozenset[str] | None
    """Names of the corpora it is for; None for all, those made later too."""
    created_at: int
    """Milliseconds since 1970-01-01 UTC."""
    revoked_at: int | None
    """Milliseconds since 1970-01-01 UTC; None while it is active."""

    def allows(self, scope: AccessScope) -> bool:
        """Return whether the key has a scope."""
        return scope in self.scopes

    def reaches(self, corpus: str) -> bool:
        """Return whether the key is for a corpus."""
        return self.corpora is None or corpus in self.corpora


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that was just made: the only moment at which its text is known."""

    key: ApiKey
    text: str = field(repr=False)
    """`ff_<id>_<secret>`."""


def issue_key(
    connection: Connection, name: str, *, scopes: Collection[str], corpora: Collection[str] | None = None
) -> IssuedKey:
    """Make a key.

    Args:
        connection: An open writing unit.
        name: What people call it; need not be unique.
        scopes: At least one.
        corpora: Names, which need not exist yet; None or `*` for all.

    Raises:
        InvalidInput: The name is empty, too long or not printable, a scope is unknown, or a corpus cannot exist.
    """
    if not 1 <= len(name.strip()) <= len(name) <= _MAX_NAME_CHARACTERS or not name.isprintable():
        raise InvalidInput(f"name must be 1 to {_MAX_NAME_CHARACTERS} printable characters", item="name")
    granted, reached = _check_scopes(scopes), _check_corpora(corpora)
    key_id, secret = secrets.token_hex(_ID_BYTES), secrets.token_urlsafe(_SECRET_BYTES)
    now = int(connection.execute(select(now_ms())).scalar_one())
    key = ApiKey(key_id, name, _hash(secret), granted, reached, created_at=now, revoked_at=None)
    connection.execute(
        insert(ApiKeyRow).values(
            id=key.id,
            name=key.name,
            secret_hash=key.secret_hash,
            scopes=",".join(sorted(granted)),
            corpora=EVERY_CORPUS if reached is None else ",".join(sorted(reached)),
            created_at=now,
        )
    )
    return IssuedKey(key, f"ff_{key_id}_{secret}")


def list_keys(connection: Connection, *, revoked: bool = True) -> list[ApiKey]:
    """Return keys, oldest first.

    Args:
        connection: An open unit.
        revoked: Whether revoked ones are among them.
    """
    statement = select(*_COLUMNS).order_by(ApiKeyRow.created_at, ApiKeyRow.id)
    if not revoked:
        statement = statement.where(ApiKeyRow.revoked_at.is_(None))
    return [_key(row) for row in connection.execute(statement)]


def get_key(connection: Connection, key_id: str) -> ApiKey:
    """Return one key, revoked or not.

    Raises:
        NotFound: There is no key of that id.
    """
    row = connection.execute(select(*_COLUMNS).where(ApiKeyRow.id == key_id)).first()
    if row is None:
        raise NotFound("there is no API key of that id: `forefill keys ls` shows them")  # it may be a key itself
    return _key(row)


def revoke_key(connection: Connection, key_id: str) -> ApiKey:
    """End a key for good and return it; one that is revoked already keeps the time of the first revocation.

    Raises:
        NotFound: There is no key of that id.
    """
    get_key(connection, key_id)
    active = (ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_(None))
    connection.execute(update(ApiKeyRow).where(*active).values(revoked_at=_not_before(ApiKeyRow.created_at)))
    return get_key(connection, key_id)


def forget_key(connection: Connection, key_id: str) -> ApiKey:
    """Remove a revoked key's record and return it. When no record is left, the API is without keys again.

    Raises:
        NotFound: There is no key of that id.
        Conflict: It is active.
    """
    key = get_key(connection, key_id)
    gone = delete(ApiKeyRow).where(ApiKeyRow.id == key_id, ApiKeyRow.revoked_at.is_not(None))
    if not rows_affected(connection.execute(gone)):
        raise Conflict(f"API key {shown(key_id)} is active: revoke it first")
    return key


def find_key(keys: Mapping[str, ApiKey], text: str) -> ApiKey | None:
    """Return the active key that a caller presents, None if it is none of them.

    How long the comparison takes says nothing about the secret, nor whether there is a key of that id.

    Args:
        keys: By id.
        text: As presented; anything.
    """
    match = _KEY.fullmatch(text) if len(text) <= MAX_KEY_CHARACTERS else None
    if match is None:
        return None
    key = keys.get(match[1])
    is_equal = hmac.compare_digest(_hash(match[2]), _NO_HASH if key is None else key.secret_hash)
    return key if key is not None and is_equal and key.revoked_at is None else None


_COLUMNS = (
    ApiKeyRow.id,
    ApiKeyRow.name,
    ApiKeyRow.secret_hash,
    ApiKeyRow.scopes,
    ApiKeyRow.corpora,
    ApiKeyRow.created_at,
    ApiKeyRow.revoked_at,
)


def _key(row: "Row[*tuple[Any, ...]]") -> ApiKey:
    key_id, name, secret_hash, scopes, corpora, created_at, revoked_at = row
    return ApiKey(
        key_id, name, bytes(secret_hash), _parse_scopes(scopes), _parse_corpora(corpora), created_at, revoked_at
    )


def _not_before(moment: "SQLColumnExpression[int]") -> "ColumnElement[int]":
    """Return now, or a moment that a clock set back has put into the future: no key stays valid for that."""
    return case((moment > now_ms(), moment), else_=now_ms())


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _check_scopes(scopes: Collection[str]) -> frozenset[AccessScope]:
    known = ", ".join(AccessScope)
    unknown = [scope for scope in scopes if scope not in set(AccessScope)]
    if unknown:
        raise InvalidInput(f"scope {shown(unknown[0])} is unknown: there are {known}", item="scopes")
    if not scopes:
        raise InvalidInput(f"a key needs at least one scope of {known}", item="scopes")
    return frozenset(AccessScope(scope) for scope in scopes)


def _check_corpora(corpora: Collection[str] | None) -> frozenset[str] | None:
    if corpora is None or EVERY_CORPUS in corpora:
        return None
    if not corpora:
        raise InvalidInput("a key needs at least one corpus, or `*` for all", item="corpora")
    for name in corpora:
        check_corpus_name(name)
    named = frozenset(corpora)
    if len(named) > MAX_CORPORA:
        raise InvalidInput(f"a key is for {MAX_CORPORA} corpora at most, or for all with `*`", item="corpora")
    return named


def _parse_scopes(text: str) -> frozenset[AccessScope]:
    """Return the scopes that this version knows; another one's grants nothing, and keeps no key from being read."""
    return frozenset(scope for scope in AccessScope if scope in text.split(","))


def _parse_corpora(text: str) -> frozenset[str] | None:
    return None if text == EVERY_CORPUS else frozenset(text.split(","))
