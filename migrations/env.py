"""Alembic's entry point: runs the migrations on a connection it is handed.

The engine comes from Forefill's own recipe (`pipeline.services.schema`); there is no alembic.ini to keep in step.
"""

from alembic import context

from pipeline.services.schema import METADATA

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    render_as_batch=connection.dialect.name == "sqlite",
    compare_type=True,
    compare_server_default=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
