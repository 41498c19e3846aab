"""The schema that migrations make is the schema that the code means, on both databases.

Alembic's own comparison sees neither CHECK constraints nor the predicates of partial indexes, so what an upgraded and
a created schema look like in the database's own catalogue is compared as well.
"""

import re
import threading

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from pipeline.database import Database, create_database_engine
from pipeline.errors import ConfigurationError
from pipeline.services.diagnosis.database import check_schema
from pipeline.services.schema import (
    METADATA,
    alembic_config,
    known_revisions,
    pending_revision,
    require_newest,
    upgrade,
)

_CONSTRAINTS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
"""
_INDEXES = "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
_COLUMNS = """
    SELECT table_name, column_name, concat_ws(' ', data_type, character_maximum_length, is_nullable, column_default,
                                              collation_name, is_identity)
    FROM information_schema.columns WHERE table_schema = 'public'
"""


def test_models_and_migrations_describe_the_same_schema(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": METADATA}
        )
        assert compare_metadata(context, METADATA) == []


def test_an_upgraded_schema_equals_a_created_one_with_its_checks_and_partial_indexes(
    database: Database, request: pytest.FixtureRequest
) -> None:
    empty_url = request.getfixturevalue("sqlite_url" if database.is_sqlite else "postgres_url")
    created = Database(create_database_engine(empty_url))
    with created.write() as connection:
        METADATA.create_all(connection)
    with database.read() as upgraded, created.read() as made:
        assert _described(upgraded) == _described(made)
    created.close()


def test_a_check_left_out_of_a_migration_would_be_seen(database: Database) -> None:
    with database.read() as connection:
        described = "\n".join(sorted(_described(connection)))
    for name in ("ck_jobs_running_iff_leased", "ck_documents_served_iff_head_served", "uq_jobs_pending_event"):
        assert name in described
    assert re.search(r"uq_jobs_pending_event.*where.*event.*pending", described, re.IGNORECASE)


def test_downgrading_leaves_nothing_and_upgrading_again_everything(database: Database) -> None:
    with database.read() as connection:
        before = _described(connection)
    _downgrade(database)
    with database.read() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
    assert pending_revision(database) is not None
    upgrade(database)
    assert pending_revision(database) is None
    with database.read() as connection:
        assert _described(connection) == before


def test_the_names_of_the_files_say_which_revisions_alembic_knows() -> None:
    scripts = list(ScriptDirectory.from_config(alembic_config()).walk_revisions())  # newest first
    assert [script.revision for script in reversed(scripts)] == known_revisions()


def test_processes_that_upgrade_at_once_take_turns(database_url: str) -> None:
    databases = [Database(create_database_engine(database_url)) for _ in range(3)]
    results: list[tuple[str | None, str]] = []
    threads = [threading.Thread(target=lambda each=each: results.append(upgrade(each))) for each in databases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    newest = results[0][1]
    assert sorted(results, key=str) == sorted([(None, newest), (newest, newest), (newest, newest)], key=str)
    for each in databases:
        each.close()


def test_upgrading_an_upgraded_database_changes_nothing(database: Database) -> None:
    before, after = upgrade(database)
    assert before == after


def test_code_that_is_older_than_the_database_says_so(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (upgrade, pending_revision, require_newest):
        with pytest.raises(ConfigurationError, match="at revision 9999, which this version of Forefill does not know"):
            use(database)
    finding = check_schema(database)
    assert finding.level == "fail"
    assert "upgrade" not in finding.message


def _downgrade(database: Database) -> None:
    with database.write() as connection:
        config = alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")


def _described(connection: Connection) -> set[str]:
    """Return one line for every table, column, index and constraint as the database itself writes it down."""
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        return {part for name, statement in rows if name != "alembic_version" for part in _parts(name, statement)}
    lines = set()
    for query in (_CONSTRAINTS, _INDEXES, _COLUMNS):
        lines |= {" ".join(row) for row in connection.execute(text(query)) if row[0] != "alembic_version"}
    return lines


def _parts(name: str, statement: str) -> set[str]:
    """Cut a CREATE statement into its parts, since the order of columns and constraints means nothing here.

    They are not its lines: columns that were added later stand on that of the last one.
    """
    head, opened, body = statement.partition("(")
    body, closed, tail = body.rpartition(")")
    parts, depth = [""], 0
    for character in body:
        depth += (character == "(") - (character == ")")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    shown = (re.sub(r'["\s]+', " ", part).strip() for part in (head + opened, *parts, closed + tail))
    return {f"{name}: {part}" for part in shown}
