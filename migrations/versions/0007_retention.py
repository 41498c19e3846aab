"""What ended runs came to, kept without their items; and the ways to rows whose time is over."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TOTALS = ("done", "unchanged", "superseded", "dead", "cancelled", "tokens", "differences")
_INDEXES = (
    ("ix_runs_ended", "runs", ["state", "finished_at"]),
    ("ix_run_items_document_pk", "run_items", ["document_pk"]),
    ("ix_run_differences_document_pk", "run_differences", ["document_pk"]),
    ("ix_ledger_document_pk", "ledger", ["document_pk"]),
    ("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"]),
)


def upgrade() -> None:
    op.create_table(
        "run_totals",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        *(sa.Column(name, _BIG, nullable=False) for name in _TOTALS),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_run_totals_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_run_totals")),
    )
    op.add_column("corpora", sa.Column("generation_floor", _BIG, nullable=True))
    for name, table, columns in _INDEXES:
        op.create_index(name, table, columns)
    deleted = sa.text("state = 'deleted'")
    op.create_index(
        "ix_documents_deleted", "documents", ["accepted_at"], sqlite_where=deleted, postgresql_where=deleted
    )


def downgrade() -> None:
    op.drop_index("ix_documents_deleted", "documents")
    for name, table, _ in reversed(_INDEXES):
        op.drop_index(name, table)
    op.drop_column("corpora", "generation_floor")
    op.drop_table("run_totals")
