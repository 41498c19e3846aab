from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.dialects import sqlite

from pipeline.database import Database, among
from tests.support.write_path import CORPUS, DOCUMENTS, document, ingestion, sources


def statement(pks: list[int]) -> Select[Any]:
    return select(DOCUMENTS.c.id).where(among(DOCUMENTS.c.pk, pks)).order_by(DOCUMENTS.c.id)


def test_rows_are_found_by_any_number_of_numbers(database: Database) -> None:
    ingestion(database).put(CORPUS, sources(5))
    pks = [document(database, f"d{number}").pk for number in (3, 1)]
    with database.read() as connection:
        for numbers, expected in ((pks, ["d1", "d3"]), ([], []), ([*pks, *range(-5000, 0)], ["d1", "d3"])):
            assert list(connection.execute(statement(numbers)).scalars()) == expected


def test_sqlite_asks_the_primary_key_whatever_the_size_of_the_table(database: Database) -> None:
    """As a function that must equal 1, the same condition would read the whole table."""
    if not database.is_sqlite:
        return
    sql = str(statement([1]).compile(dialect=sqlite.dialect()))
    with database.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", ("[1]",)).all()
    assert any("USING INTEGER PRIMARY KEY" in step.detail for step in plan), plan
