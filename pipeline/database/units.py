"""Units of work: one transaction each, and SQL errors translated into Forefill's.

`read` and `write` are the only ways to a connection. Nothing is computed while a writing unit is open.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Dialect,
    Engine,
    Integer,
    LargeBinary,
    Row,
    Select,
    Table,
    Text,
    bindparam,
    cast,
    func,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.types import TypeEngine

from pipeline.database.base import now_ms
from pipeline.database.engines import WRITING, is_pooled, url_secrets
from pipeline.database.faults import MEANINGS, Fault, Meaning, fault_of, reason_of
from pipeline.errors import OutOfTime, Unavailable
from pipeline.telemetry.logs import get_logger

_log = get_logger(__name__)

_HELD_UP_S = 1.0
"""Seconds in one unit of work from which on the database is what took the time: nothing is computed in there."""


class Database:
    """The process's way to SQL. Thread-safe; must be created after fork."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._secrets = url_secrets(engine.url)

    @property
    def engine(self) -> Engine:
        """The engine itself, for migrations and tests."""
        return self._engine

    @property
    def is_sqlite(self) -> bool:
        """Whether this is SQLite: one writer at a time, no row locks."""
        return self._engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a unit of work that only reads.

        Raises:
            Unavailable: The database did not answer.
        """
        with self._translated(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a unit of work that writes; committed at the end, rolled back on any error.

        Raises:
            Unavailable: The database did not answer, or another writer held it too long.
        """
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(**{WRITING: True})
            with connection.begin():
                yield connection

    def clock_ms(self) -> int:
        """Return the database's clock in milliseconds."""
        with self.read() as connection:
            return int(connection.execute(now_ms().select()).scalar_one())

    def ping(self) -> None:
        """Ask the database for an answer.

        Raises:
            Unavailable: It gave none.
        """
        with self.read() as connection:
            connection.execute(text("SELECT 1"))

    def is_pooled(self) -> bool:
        """Tell whether a connection pooler such as PgBouncer stands between; statements are not prepared then.

        Raises:
            Unavailable: The database did not answer.
        """
        if self.is_sqlite:
            return False
        with self.read() as connection:
            return is_pooled(connection.connection.driver_connection)

    def close(self) -> None:
        """Close every pooled connection."""
        self._engine.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise what is no document's fault as `Unavailable`; leave `DATA` and `STATEMENT` as they are."""
        begun_at = time.monotonic()
        try:
            yield
        except PoolTimeout as error:
            raise Unavailable("all database connections are in use", service="database") from error
        except PendingRollbackError as error:  # a statement after one that lost the connection
            raise _unavailable(MEANINGS[Fault.LOST], reason="the connection was lost") from error
        except DBAPIError as error:
            meaning = MEANINGS.get(fault_of(error))
            if meaning is None:
                raise
            raise _unavailable(meaning, reason=reason_of(error, secrets=self._secrets)) from error
        except OutOfTime as error:
            if time.monotonic() - begun_at < _HELD_UP_S:
                raise
            raise _unavailable(MEANINGS[Fault.BUSY], reason=f"no answer in time: {error}") from error


def _unavailable(meaning: Meaning, *, reason: str) -> Unavailable:
    _log.warning("database.unavailable", error=meaning.sentence, reason=reason)
    return Unavailable(meaning.sentence, service="database", retry_after_s=meaning.retry_after_s, reason=reason)


def rows_affected(result: CursorResult[Any]) -> int:
    """Return how many rows one UPDATE or DELETE changed."""
    return result.rowcount


def upsert(
    connection: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    key: Sequence[str],
    update: Sequence[str],
) -> None:
    """Insert rows, replacing the named columns where the key exists already; no rows, no statement.

    Args:
        connection: An open writing unit.
        table: Target.
        rows: Column values, all with the same columns; keys must not repeat. SQL expressions only in a single row.
        key: Columns of the unique constraint.
        update: Columns taken from the new row on conflict.
    """
    if not rows:
        return
    names = tuple(rows[0])
    if len(rows) == 1:
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        connection.execute(_updating(insert(table), key, update), list(rows))
    elif connection.dialect.name == "sqlite":
        # Without the object layer between, which takes twice as long over a row as SQLite does.
        sql, order = _sqlite_upsert(connection.dialect, table, names, tuple(key), tuple(update))
        connection.exec_driver_sql(sql, list(map(itemgetter(*order), rows)))
    else:
        # As one statement over arrays: hundreds of rows by a statement each took a third of a backfill's time.
        statement = postgresql.insert(table).from_select(names, _rows_of_arrays(table, rows))
        connection.execute(_updating(statement, key, update))


def _updating(insert: Any, key: Sequence[str], update: Sequence[str]) -> Any:
    return insert.on_conflict_do_update(
        index_elements=list(key), set_={column: insert.excluded[column] for column in update}
    )


@cache
def _sqlite_upsert(
    dialect: Dialect, table: Table, names: tuple[str, ...], key: tuple[str, ...], update: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """Return the statement with the order of its parameters."""
    compiled = _updating(sqlite.insert(table), key, update).compile(dialect=dialect, column_keys=list(names))
    return str(compiled), tuple(compiled.positiontup)


def _rows_of_arrays(table: Table, rows: Sequence[dict[str, Any]]) -> Select[Any]:
    """Return a query whose rows are these, handed over as one array a column."""
    types = {name: table.c[name].type for name in rows[0]}
    arrays = [_array(name, [row[name] for row in rows], types[name]) for name in types]
    source = func.unnest(*arrays).table_valued(*types).render_derived()
    return select(
        *(
            func.decode(source.c[name], "hex") if isinstance(kind, LargeBinary) else source.c[name]
            for name, kind in types.items()
        )
    )


def _array(name: str, values: list[Any], kind: TypeEngine[Any]) -> ColumnElement[Any]:
    """Return values as an array, of hex text where they are bytes.

    Numbers and bytes go as one text that the server takes apart: as arrays, psycopg takes ten times as long over them.
    """
    if isinstance(kind, LargeBinary):
        return _split(name, [value if value is None else value.hex() for value in values])
    if isinstance(kind, Integer):
        return cast(_split(name, values), postgresql.ARRAY(kind))
    return bindparam(f"{name}_array", values, type_=postgresql.ARRAY(kind))


def _split(name: str, values: list[Any]) -> ColumnElement[Any]:
    joined = ",".join(["null" if value is None else str(value) for value in values])
    return func.string_to_array(bindparam(f"{name}_joined", joined, type_=Text()), ",", "null")


def insert_missing(
    connection: Connection, table: Table, rows: Sequence[dict[str, Any]], *, returning: Sequence[str]
) -> list[Row[Any]]:
    """Insert the rows that no unique constraint refuses and return the named columns of those only.

    Two writers of one key settle it here: the second one waits for the first, then inserts nothing. No constraint is
    named, because PostgreSQL would raise the conflict of any other one when both writers are at it at once.
    """
    if not rows:
        return []
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).on_conflict_do_nothing()
    return list(connection.execute(statement.returning(*(table.c[name] for name in returning)), list(rows)))
