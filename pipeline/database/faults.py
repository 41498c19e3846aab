"""What an error of the database means: one table of PostgreSQL's SQLSTATEs and one of SQLite's result codes.

Nearly every error says something about the server, the session or the connection. Those are nobody's fault: the unit
of work may be repeated, and no document is charged. Only class 22 and 23 (a value or a constraint) can come from what
a document holds. What is left is a statement that does not fit the schema: a deployment's fault, or ours.
"""

import re
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.exc import DBAPIError


class Fault(StrEnum):
    """What an error of the database means."""

    BUSY = "busy"
    """Another session is in the way: a lock, a deadlock, a conflict, a statement's time-out."""
    READ_ONLY = "read_only"
    """It accepts no writes for now: a replica, a demoted primary, a read-only file."""
    NO_ROOM = "no_room"
    """Disk, memory or connections are used up."""
    REFUSED = "refused"
    """Login, database, right or connection option is refused."""
    LOST = "lost"
    """The connection or its session is gone or of no use."""
    BROKEN = "broken"
    """The server, its disk or the file has a fault."""
    DATA = "data"
    """A value or a row was refused: the only fault that a document can be charged with."""
    STATEMENT = "statement"
    """The statement does not fit the schema."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """How a fault is told, and what follows from it."""

    sentence: str
    retry_after_s: float
    renews_pool: bool = False
    """Whether pooled connections may have the same fault and are replaced: they may lead to a demoted primary."""


MEANINGS: Mapping[Fault, Meaning] = {
    Fault.BUSY: Meaning("the database is busy", 1.0),
    Fault.READ_ONLY: Meaning("the database refuses writes: it is read-only", 2.0, renews_pool=True),
    Fault.NO_ROOM: Meaning("the database refuses more: disk, memory or connections are used up", 2.0),
    Fault.REFUSED: Meaning("the database cannot be opened or used with these settings", 5.0, renews_pool=True),
    Fault.LOST: Meaning("the database is unreachable", 1.0, renews_pool=True),
    Fault.BROKEN: Meaning("the database reports a fault of its own or of its disk", 5.0, renews_pool=True),
}
"""Of every fault that makes the database unavailable; `DATA` and `STATEMENT` are not among them."""

_POSTGRES_STATES: Mapping[str, Fault] = {
    "08": Fault.LOST,  # connection exception
    "0A000": Fault.LOST,  # "cached plan must not change result type": a session that outlived a migration
    "22": Fault.DATA,
    "23": Fault.DATA,
    "25": Fault.LOST,  # invalid transaction state: 25P02 after another error, 25P03 and 25P04 time-outs
    "25006": Fault.READ_ONLY,
    "26": Fault.LOST,  # a prepared statement that this session does not have: a pooler in between
    "28": Fault.REFUSED,
    "3D": Fault.REFUSED,  # no such database
    "40": Fault.BUSY,  # rolled back: serialization failure, deadlock
    "42P05": Fault.LOST,  # a prepared statement that this session has already, as 26
    "42501": Fault.REFUSED,  # insufficient privilege
    "53": Fault.NO_ROOM,
    "55": Fault.BUSY,  # object not in prerequisite state: lock time-out, in use
    "57": Fault.LOST,  # operator intervention: shutdown, crash, starting up, idle session
    "57014": Fault.BUSY,  # cancelled: statement time-out
    "58": Fault.BROKEN,  # system error
    "F0": Fault.BROKEN,  # configuration file
    "XX": Fault.BROKEN,  # internal error, corruption
}
"""By SQLSTATE, else by its class (the first two characters); every other one is `STATEMENT`."""

_SQLITE_CODES: Mapping[int, Fault] = {
    sqlite3.SQLITE_INTERNAL: Fault.BROKEN,
    sqlite3.SQLITE_PERM: Fault.REFUSED,
    sqlite3.SQLITE_ABORT: Fault.BUSY,
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_LOCKED: Fault.BUSY,
    sqlite3.SQLITE_NOMEM: Fault.NO_ROOM,
    sqlite3.SQLITE_READONLY: Fault.READ_ONLY,
    sqlite3.SQLITE_INTERRUPT: Fault.BUSY,
    sqlite3.SQLITE_IOERR: Fault.BROKEN,
    sqlite3.SQLITE_CORRUPT: Fault.BROKEN,
    sqlite3.SQLITE_FULL: Fault.NO_ROOM,
    sqlite3.SQLITE_CANTOPEN: Fault.REFUSED,
    sqlite3.SQLITE_PROTOCOL: Fault.BUSY,
    sqlite3.SQLITE_SCHEMA: Fault.BUSY,
    sqlite3.SQLITE_TOOBIG: Fault.DATA,
    sqlite3.SQLITE_CONSTRAINT: Fault.DATA,
    sqlite3.SQLITE_MISMATCH: Fault.DATA,
    sqlite3.SQLITE_NOLFS: Fault.BROKEN,
    sqlite3.SQLITE_AUTH: Fault.REFUSED,
    sqlite3.SQLITE_NOTADB: Fault.BROKEN,
}
"""By primary result code, the low byte of an extended one; every other one is `STATEMENT`."""

_STATELESS: Mapping[str, Fault] = {
    "OperationalError": Fault.LOST,
    "InterfaceError": Fault.LOST,
    "InternalError": Fault.LOST,
    "DataError": Fault.DATA,
    "IntegrityError": Fault.DATA,
}
"""What psycopg raises without asking the server, by class; without an answer there was no server, or no longer."""

_PRIMARY_CODE = 0xFF
_MAX_REASON_CHARACTERS = 300
_LONG_SECRET = 6


def fault_of(error: DBAPIError) -> Fault:
    """Return what an error means."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        code = getattr(original, "sqlite_errorcode", None)
        return Fault.STATEMENT if code is None else sqlite_fault(code)
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return postgres_fault(state)
    if error.connection_invalidated:
        return Fault.LOST
    connecting = error.statement is None
    return _stateless_fault(original, otherwise=Fault.REFUSED if connecting else Fault.STATEMENT)


def postgres_fault(state: str) -> Fault:
    """Return what a SQLSTATE means."""
    return _POSTGRES_STATES.get(state) or _POSTGRES_STATES.get(state[:2], Fault.STATEMENT)


def sqlite_fault(code: int) -> Fault:
    """Return what a result code of SQLite means, a primary or an extended one."""
    return _SQLITE_CODES.get(code & _PRIMARY_CODE, Fault.STATEMENT)


def is_blameless(error: BaseException) -> bool:
    """Tell whether an error is one of the database that no document can have caused."""
    return isinstance(error, DBAPIError) and fault_of(error) is not Fault.DATA


def reason_of(error: DBAPIError, *, secrets: frozenset[str] = frozenset()) -> str:
    """Return what the driver or the server said, in one line and without secrets. It may name hosts and users.

    Args:
        error: An error that is no fault of a document's: those quote rows.
        secrets: What must not be in it.
    """
    diagnosis = getattr(error.orig, "diag", None)
    text = getattr(diagnosis, "message_primary", None) or str(error.orig)
    line = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    for secret in sorted(secrets, key=len, reverse=True):
        # A short one is in many a word; it is a secret only where it stands alone.
        shown = re.escape(secret) if len(secret) >= _LONG_SECRET else rf"(?<!\w){re.escape(secret)}(?!\w)"
        line = re.sub(shown, "***", line)
    if len(line) > _MAX_REASON_CHARACTERS:
        line = f"{line[:_MAX_REASON_CHARACTERS]}…"
    return line


def _stateless_fault(original: BaseException | None, *, otherwise: Fault) -> Fault:
    names = (kind.__name__ for kind in type(original).__mro__)
    return next((_STATELESS[name] for name in names if name in _STATELESS), otherwise)
