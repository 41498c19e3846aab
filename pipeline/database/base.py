"""Declarative base, column types and the database's own clock.

Every time in SQL is an integer of milliseconds since 1970 read from the database, never from a process: two hosts
with different clocks must agree on whether a lease has expired.
"""

from typing import Annotated, Any

from sqlalchemy import BigInteger, Integer, MetaData, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

BIG_INTEGER = BigInteger().with_variant(Integer, "sqlite")
"""64 bits everywhere; SQLite only numbers rows by itself when the type is spelled INTEGER."""

COLLATED_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
"""Text ordered by code point on both databases, so that keyset pagination means the same on both."""

Identity = Annotated[int, mapped_column(BIG_INTEGER, primary_key=True, autoincrement=True)]
"""A row number that is never given out twice."""

Millis = Annotated[int, mapped_column(BIG_INTEGER)]
"""Milliseconds since 1970-01-01 UTC by the database's clock."""

DocumentText = Annotated[str, mapped_column(COLLATED_TEXT)]
"""Text compared and ordered by code point."""


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(naming_convention=_NAMES)


class now_ms(FunctionElement[int]):  # noqa: N801  # used like SQLAlchemy's own lower-case functions
    """The database's clock in milliseconds; on PostgreSQL the wall clock, not the transaction's start."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _sqlite_now_ms(_element: now_ms, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER)"


@compiles(now_ms, "postgresql")
def _postgresql_now_ms(_element: now_ms, _compiler: SQLCompiler, **_options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"
