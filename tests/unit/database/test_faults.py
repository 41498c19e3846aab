"""Every state of PostgreSQL and every result code of SQLite has one meaning; only data is a document's fault."""

import sqlite3
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors
from sqlalchemy.exc import DataError, InterfaceError, OperationalError, ProgrammingError

from pipeline.database.faults import (
    MEANINGS,
    Fault,
    fault_of,
    is_blameless,
    postgres_fault,
    reason_of,
    sqlite_fault,
)

CLASSES = {
    "08": Fault.LOST,
    "22": Fault.DATA,
    "23": Fault.DATA,
    "25": Fault.LOST,
    "26": Fault.LOST,
    "28": Fault.REFUSED,
    "3D": Fault.REFUSED,
    "40": Fault.BUSY,
    "53": Fault.NO_ROOM,
    "55": Fault.BUSY,
    "57": Fault.LOST,
    "58": Fault.BROKEN,
    "F0": Fault.BROKEN,
    "XX": Fault.BROKEN,
}
STATES = {
    "0A000": Fault.LOST,
    "25006": Fault.READ_ONLY,
    "42501": Fault.REFUSED,
    "42P05": Fault.LOST,
    "57014": Fault.BUSY,
}
SQLITE = {
    Fault.BUSY: {"ABORT", "BUSY", "INTERRUPT", "LOCKED", "PROTOCOL", "SCHEMA"},
    Fault.READ_ONLY: {"READONLY"},
    Fault.NO_ROOM: {"FULL", "NOMEM"},
    Fault.REFUSED: {"AUTH", "CANTOPEN", "PERM"},
    Fault.BROKEN: {"CORRUPT", "INTERNAL", "IOERR", "NOLFS", "NOTADB"},
    Fault.DATA: {"CONSTRAINT", "MISMATCH", "TOOBIG"},
    Fault.STATEMENT: {"EMPTY", "ERROR", "FORMAT", "MISUSE", "NOTFOUND", "RANGE"},
}


def known_states() -> Iterator[str]:
    """Every SQLSTATE that the driver knows: all of PostgreSQL's."""
    for value in vars(errors).values():
        if isinstance(value, type) and issubclass(value, psycopg.Error) and value.sqlstate:
            yield value.sqlstate


def test_every_sqlstate_means_what_the_table_says() -> None:
    states = set(known_states())
    assert len(states) > 250
    expected = {state: STATES.get(state) or CLASSES.get(state[:2], Fault.STATEMENT) for state in states}
    assert {state: postgres_fault(state) for state in states} == expected


def test_only_values_and_constraints_are_a_documents_fault() -> None:
    charged = {state for state in known_states() if postgres_fault(state) is Fault.DATA}
    assert {state[:2] for state in charged} == {"22", "23"}
    assert all(postgres_fault(state) is Fault.DATA for state in known_states() if state[:2] in {"22", "23"})


def test_a_state_that_is_not_known_yet_is_decided_by_its_class() -> None:
    assert postgres_fault("57P99") is Fault.LOST
    assert postgres_fault("23999") is Fault.DATA
    assert postgres_fault("ZZ999") is Fault.STATEMENT


def test_every_result_code_of_sqlite_means_what_the_table_says() -> None:
    expected = {name: fault for fault, names in SQLITE.items() for name in names}
    found = {name: sqlite_fault(getattr(sqlite3, f"SQLITE_{name}")) for name in expected}
    assert found == expected


def test_an_extended_result_code_means_what_its_primary_code_does() -> None:
    assert sqlite_fault(sqlite3.SQLITE_IOERR_FSYNC) is Fault.BROKEN
    assert sqlite_fault(sqlite3.SQLITE_READONLY_DBMOVED) is Fault.READ_ONLY
    assert sqlite_fault(sqlite3.SQLITE_BUSY_SNAPSHOT) is Fault.BUSY
    assert sqlite_fault(sqlite3.SQLITE_CONSTRAINT_UNIQUE) is Fault.DATA


def test_what_is_no_documents_fault_has_a_sentence_and_what_is_has_none() -> None:
    assert set(Fault) - set(MEANINGS) == {Fault.DATA, Fault.STATEMENT}
    assert all(meaning.retry_after_s > 0 for meaning in MEANINGS.values())


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (OperationalError("SELECT 1", {}, psycopg.OperationalError("the connection is closed")), Fault.LOST),
        (OperationalError(None, None, psycopg.OperationalError("Connection refused")), Fault.LOST),
        (InterfaceError("SELECT 1", {}, psycopg.InterfaceError("bad")), Fault.LOST),
        (ProgrammingError(None, None, psycopg.ProgrammingError("invalid URI query parameter")), Fault.REFUSED),
        (ProgrammingError("SELECT", {}, psycopg.ProgrammingError("cannot adapt type")), Fault.STATEMENT),
        (ProgrammingError("SELECT", {}, psycopg.Error("lost"), connection_invalidated=True), Fault.LOST),
        (DataError("INSERT", {}, psycopg.DataError("NUL (0x00) bytes")), Fault.DATA),
        (ProgrammingError("SELECT", {}, sqlite3.ProgrammingError("wrong number of bindings")), Fault.STATEMENT),
    ],
)
def test_what_the_driver_says_by_itself_has_a_meaning_too(error: OperationalError, fault: Fault) -> None:
    assert fault_of(error) is fault
    assert is_blameless(error) is (fault is not Fault.DATA)


def test_a_reason_is_one_line_without_secrets() -> None:
    said = psycopg.OperationalError("connection failed\n\tfor pass%23word, that is pass#word\n")
    reason = reason_of(OperationalError(None, None, said), secrets=frozenset({"pass#word", "pass%23word"}))
    assert reason == "connection failed; for ***, that is ***"


def test_a_short_secret_is_one_only_where_it_stands_alone() -> None:
    said = psycopg.OperationalError("cannot execute INSERT, password=x postgresql://forefill:x@db/x1")
    reason = reason_of(OperationalError(None, None, said), secrets=frozenset({"x"}))
    assert reason == "cannot execute INSERT, password=*** postgresql://forefill:***@db/x1"
