"""The database schema: upgrading it, and knowing whether it is up to date."""

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, make_url, text

import pipeline.documents.tables
import pipeline.jobs.tables
import pipeline.tokenizers.tables
from pipeline.database import Base, Database
from pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from alembic.config import Config  # upgrades alone need Alembic; every process compares revisions

METADATA = Base.metadata
"""Every table of every package."""

REQUIRED_PACKAGES = (pipeline.documents.tables, pipeline.jobs.tables, pipeline.tokenizers.tables)
"""Modules that must be imported for `METADATA` to be whole."""

_MIGRATIONS = Path(__file__).parents[2] / "migrations"
_CURRENT = text("SELECT version_num FROM alembic_version")


def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the schema to the newest revision; return the revisions before and after.

    Two processes that upgrade at once take turns: the whole upgrade is one writing transaction, and on PostgreSQL an
    advisory lock comes first.

    Raises:
        ConfigurationError: A newer version has upgraded it already.
    """
    from alembic import command  # noqa: PLC0415  # see above

    with database.write() as connection:
        if not database.is_sqlite:
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(715823100425)")
        before = _current_revision(connection)
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        after = _current_revision(connection)
    return before, after or ""


def pending_revision(database: Database) -> str | None:
    """Return the newest revision if the database is not at it, else None.

    Raises:
        ConfigurationError: The database is at one that this code does not know.
    """
    with database.read() as connection:
        current = _current_revision(connection)
    newest = known_revisions()[-1]
    return None if current == newest else newest


def require_newest(database: Database) -> None:
    """Refuse to work on a database that is not at the newest revision.

    Raises:
        ConfigurationError: It is not; the message says what to do.
        Unavailable: It did not answer.
    """
    newest = pending_revision(database)
    if newest is not None:
        raise ConfigurationError(f"the database is not at revision {newest}: run `forefill db upgrade`")


def require_file(database_url: str, *, otherwise: str) -> None:
    """Refuse a SQLite file that does not exist, since opening it would leave an empty one behind.

    Args:
        database_url: Of any database.
        otherwise: What the user can do about it.

    Raises:
        ConfigurationError: It does not exist.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite" and url.database and not Path(url.database).exists():
        raise ConfigurationError(f"there is no database at {url.database}: {otherwise}")


def known_revisions() -> list[str]:
    """Return every revision there is, oldest first: the number that its file's name begins with."""
    return sorted(path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def _current_revision(connection: Connection) -> str | None:
    """Return the database's revision, None if it is empty; refuse one of a newer version."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    current: str | None = connection.execute(_CURRENT).scalar_one_or_none()
    if current is not None and current not in known_revisions():
        raise ConfigurationError(
            f"the database is at revision {current}, which this version of Forefill does not know: "
            "use the newer version"
        )
    return current


def alembic_config() -> "Config":
    """Return Alembic's configuration without any file."""
    from alembic.config import Config  # noqa: PLC0415  # see above

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config
