"""The database schema: upgrading it, and knowing whether it is up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import pipeline.documents.tables
import pipeline.jobs.tables
import pipeline.tokenizers.tables
from pipeline.database import Base, Database
from pipeline.errors import ConfigurationError

METADATA = Base.metadata
"""Every table of every package."""

REQUIRED_PACKAGES = (pipeline.documents.tables, pipeline.jobs.tables, pipeline.tokenizers.tables)
"""Modules that must be imported for `METADATA` to be whole."""

_MIGRATIONS = Path(__file__).parents[2] / "migrations"


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema to the newest revision; return the revisions before and after.

    Two processes that upgrade at once take turns: the whole upgrade is one writing transaction, and on PostgreSQL an
    advisory lock comes first.

    Raises:
        ConfigurationError: A newer version has upgraded it already.
    """
    with database.write() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(715823100425)")
        before = _known_revision(connection)
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        after = MigrationContext.configure(connection).get_current_revision()
    return before, after or ""


def pending_revision(database: Database) -> str | None:
    """Return the newest revision if the database is not at it, else None.

    Raises:
        ConfigurationError: The database is at one that this code does not know.
    """
    with database.read() as connection:
        current = _known_revision(connection)
    newest = ScriptDirectory.from_config(alembic_config()).get_current_head()
    return None if current == newest else newest


def _known_revision(connection: Connection) -> str | None:
    """Return the database's revision, None if it is empty; refuse one of a newer version."""
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(alembic_config()).walk_revisions()}
    if current is not None and current not in known:
        raise ConfigurationError(
            f"the database is at revision {current}, which this version of Forefill does not know: "
            "use the newer version"
        )
    return current


def alembic_config() -> Config:
    """Return Alembic's configuration without any file."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
