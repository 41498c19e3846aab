"""`forefill db`: the schema."""

import contextlib

import typer

from pipeline.cli.invocation import Call, command, new_group
from pipeline.database import Database, create_database_engine
from pipeline.services.schema import upgrade


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = new_group("The database schema.")
    command(group, "upgrade")(upgrade_schema)
    app.add_typer(group, name="db")


def upgrade_schema(call: Call) -> None:
    """Bring the database to the newest revision; safe to repeat, and to run twice at once."""
    engine = create_database_engine(call.settings.database_url, pool_size=1)
    with contextlib.closing(Database(engine)) as database:
        before, after = upgrade(database)
    call.output.line(f"already at revision {after}" if before == after else f"upgraded to revision {after}")
    call.output.emit({"before": before, "after": after})
