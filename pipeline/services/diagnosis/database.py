"""Checks of SQL: does it answer, and is its schema the one of this version."""

from collections.abc import Iterator

from sqlalchemy import make_url, text

from pipeline.database import Database
from pipeline.errors import ConfigurationError, Unavailable, operator_sentence
from pipeline.services.diagnosis.database_writes import DatabaseWriteProbe
from pipeline.services.diagnosis.findings import Finding
from pipeline.services.schema import pending_revision
from pipeline.settings import Settings

_SUBJECT = "database"


def check(database: Database, settings: Settings) -> Iterator[Finding]:
    """Yield what holds for the database; a `fail` means that nothing else can be asked of it."""
    where = make_url(settings.database_url).render_as_string(hide_password=True)
    try:
        with database.read() as connection:
            function = "sqlite_version()" if database.is_sqlite else "current_setting('server_version')"
            version = connection.execute(text(f"SELECT {function}")).scalar_one()
        schema = check_schema(database)
        pooled = database.is_pooled()
    except Unavailable as error:
        yield Finding.fail(
            _SUBJECT, f"{where}: {operator_sentence(error)}", remedy="start it, or correct FOREFILL_DATABASE_URL"
        )
        return
    kind = "SQLite" if database.is_sqlite else "PostgreSQL"
    yield Finding.ok(_SUBJECT, f"{kind} {version} at {where}")
    if pooled:
        yield Finding.ok("pooler", "a pooler such as PgBouncer is in between: statements are not prepared")
    yield schema


def check_writes(database: Database) -> Finding:
    """Return whether the database takes writes."""
    problem = DatabaseWriteProbe(database).problem()
    if problem is None:
        return Finding.ok("database writes", "are taken")
    remedy = "let FOREFILL_DATABASE_URL lead to the primary; see to its disk, its rights, and who holds a lock on it"
    return Finding.fail("database writes", problem, remedy=remedy)


def check_schema(database: Database) -> Finding:
    """Return whether the schema is the one of this version.

    Raises:
        Unavailable: The database did not answer.
    """
    try:
        newest = pending_revision(database)
    except ConfigurationError as error:
        return Finding.fail("schema", str(error), remedy="use the version that upgraded it, or a newer one")
    if newest is not None:
        return Finding.fail("schema", f"is not at revision {newest}", remedy="run `forefill db upgrade`")
    return Finding.ok("schema", "is at the newest revision")
