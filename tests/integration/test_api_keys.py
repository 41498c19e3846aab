"""API keys in SQL: what is kept of them, what they grant, and how they end."""

import hmac

import pytest
from sqlalchemy import text

from pipeline.database import Database
from pipeline.documents.access import (
    AccessScope,
    ApiKey,
    IssuedKey,
    find_key,
    forget_key,
    issue_key,
    list_keys,
    revoke_key,
)
from pipeline.errors import Conflict, InvalidInput, NotFound


def issue(
    database: Database, *, scopes: tuple[str, ...] = ("query",), corpora: tuple[str, ...] | None = None
) -> IssuedKey:
    with database.write() as connection:
        return issue_key(connection, "a key", scopes=scopes, corpora=corpora)


def active(database: Database) -> dict[str, ApiKey]:
    with database.read() as connection:
        return {key.id: key for key in list_keys(connection, revoked=False)}


def test_an_issued_key_is_found_by_its_text_and_says_what_it_grants(database: Database) -> None:
    issued = issue(database, scopes=("ingest", "query", "query"), corpora=("b", "a"))
    key = find_key(active(database), issued.text)
    assert key == issued.key
    assert key.scopes == {AccessScope.QUERY, AccessScope.INGEST}
    assert not key.allows(AccessScope.ADMIN)
    assert key.reaches("a")
    assert not key.reaches("c")


@pytest.mark.parametrize("corpora", [None, ("*",), ("a", "*")])
def test_a_key_for_all_corpora_reaches_any(database: Database, corpora: tuple[str, ...] | None) -> None:
    issued = issue(database, corpora=corpora)
    assert find_key(active(database), issued.text) == issued.key
    assert issued.key.reaches("made-later")


def test_the_secret_is_neither_in_sql_nor_in_what_is_printed(database: Database) -> None:
    issued = issue(database)
    secret = issued.text.split("_", 2)[2]
    with database.read() as connection:
        stored = repr(connection.execute(text("SELECT * FROM api_keys")).all())
    assert secret not in stored
    assert secret not in repr(issued)
    assert repr(issued.key.secret_hash) not in repr(issued)


def test_a_revoked_key_is_found_no_more_and_stays_on_record(database: Database) -> None:
    kept, ended = issue(database), issue(database)
    with database.write() as connection:
        revoke_key(connection, ended.key.id)
    assert set(active(database)) == {kept.key.id}
    with database.read() as connection:
        recorded = {key.id: key for key in list_keys(connection)}
    assert recorded[ended.key.id].revoked_at is not None
    assert find_key(recorded, ended.text) is None
    with database.write() as connection:
        revoke_key(connection, ended.key.id)
    with database.read() as connection:
        assert {key.id: key for key in list_keys(connection)} == recorded


def test_a_key_is_forgotten_once_it_is_revoked_and_not_before(database: Database) -> None:
    issued = issue(database)
    with database.write() as connection, pytest.raises(Conflict):
        forget_key(connection, issued.key.id)
    assert set(active(database)) == {issued.key.id}
    with database.write() as connection:
        revoke_key(connection, issued.key.id)
        assert forget_key(connection, issued.key.id).id == issued.key.id
        assert list_keys(connection) == []
        with pytest.raises(NotFound):
            forget_key(connection, issued.key.id)


def test_a_clock_that_was_set_back_does_not_keep_a_key_alive(database: Database) -> None:
    issued = issue(database)
    with database.write() as connection:
        connection.execute(text("UPDATE api_keys SET created_at = created_at + 3600000"))
        revoke_key(connection, issued.key.id)
    assert active(database) == {}


def test_a_scope_of_a_later_version_grants_nothing_and_hides_no_key(database: Database) -> None:
    newer, known = issue(database), issue(database)
    with database.write() as connection:
        connection.execute(text("UPDATE api_keys SET scopes = 'audit' WHERE id = :id"), {"id": newer.key.id})
    assert set(active(database)) == {newer.key.id, known.key.id}
    assert active(database)[newer.key.id].scopes == frozenset()


def test_revoking_a_key_that_never_was_is_not_found(database: Database) -> None:
    with database.write() as connection, pytest.raises(NotFound):
        revoke_key(connection, "0" * 16)


def test_what_is_no_key_is_refused(sqlite_database: Database) -> None:
    issued = issue(sqlite_database)
    keys = active(sqlite_database)
    marker, key_id, secret = issued.text.split("_", 2)
    forged = [
        *("", "ff__", key_id, secret, issued.text.upper(), f" {issued.text}", f"{issued.text}\n", f"{issued.text}A"),
        *(issued.text[:-1], f"{marker}_{'0' * 16}_{secret}", f"{marker}_{key_id}_{'A' * 300}", "ff_é_é"),
        issue(sqlite_database).text[: len(marker) + 18] + secret,
    ]
    assert [each for each in forged if find_key(keys, each) is not None] == []


def test_hashes_are_compared_in_constant_time_even_for_unknown_ids(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued = issue(sqlite_database)
    lengths: list[tuple[int, int]] = []
    compare = hmac.compare_digest

    def watched(left: bytes, right: bytes) -> bool:
        lengths.append((len(left), len(right)))
        return compare(left, right)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    assert find_key(active(sqlite_database), issued.text) is not None
    assert find_key({}, issued.text) is None
    assert lengths == [(32, 32), (32, 32)]


@pytest.mark.parametrize(
    ("name", "scopes", "corpora"),
    [
        ("", ["query"], None),
        (" ", ["query"], None),
        ("x" * 101, ["query"], None),
        ("line\nfeed", ["query"], None),
        ("a", [], None),
        ("a", ["root"], None),
        ("a", ["query"], []),
        ("a", ["query"], ["No Corpus"]),
        ("a", ["query"], [f"c{number}" for number in range(501)]),
    ],
)
def test_a_key_that_could_not_mean_anything_is_refused(
    sqlite_database: Database, name: str, scopes: list[str], corpora: list[str] | None
) -> None:
    with sqlite_database.write() as connection, pytest.raises(InvalidInput):
        issue_key(connection, name, scopes=scopes, corpora=corpora)
