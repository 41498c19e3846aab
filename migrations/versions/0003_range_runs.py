"""Runs over a whole corpus: how far they are planned, what each job counted, and what differed."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_COUNTS = ("done", "unchanged", "superseded", "dead", "tokens")


def _counts() -> list[sa.Column[int]]:
    return [sa.Column(name, _BIG, nullable=False) for name in _COUNTS]


def upgrade() -> None:
    op.create_table(
        "range_runs",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("expected", _BIG, nullable=False),
        sa.Column("planned_to", _BIG, nullable=False),
        sa.Column("paused_at", _BIG, nullable=True),
        sa.Column("paused_ms", _BIG, nullable=False),
        *_counts(),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_range_runs_run_id_runs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_range_runs")),
    )
    op.create_table(
        "range_counts",
        sa.Column("job_pk", _BIG, autoincrement=False, nullable=False),
        *_counts(),
        sa.ForeignKeyConstraint(["job_pk"], ["jobs.pk"], name=op.f("fk_range_counts_job_pk_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_pk", name=op.f("pk_range_counts")),
    )
    op.create_table(
        "run_differences",
        sa.Column("run_id", sa.String(length=36), nullable=False),
        sa.Column("document_pk", _BIG, autoincrement=False, nullable=False),
        sa.Column("generation", _BIG, nullable=False),
        sa.Column("difference", sa.Text(), nullable=False),
        sa.Column("found_at", _BIG, nullable=False),
        sa.ForeignKeyConstraint(
            ["document_pk"], ["documents.pk"], name=op.f("fk_run_differences_document_pk_documents")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_run_differences_run_id_runs"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "document_pk", name=op.f("pk_run_differences")),
    )


def downgrade() -> None:
    for table in ("run_differences", "range_counts", "range_runs"):
        op.drop_table(table)
