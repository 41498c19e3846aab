"""Uploaded tokenizer files."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tokenizer_files",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_tokenizer_files_hash_length")),
        sa.CheckConstraint("size_bytes > 0", name=op.f("ck_tokenizer_files_not_empty")),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_tokenizer_files")),
    )
    op.create_table(
        "spec_tokenizers",
        sa.Column("spec_id", sa.String(length=200), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["sha256"], ["tokenizer_files.sha256"], name=op.f("fk_spec_tokenizers_sha256_tokenizer_files")
        ),
        sa.ForeignKeyConstraint(["spec_id"], ["specs.id"], name=op.f("fk_spec_tokenizers_spec_id_specs")),
        sa.PrimaryKeyConstraint("spec_id", name=op.f("pk_spec_tokenizers")),
    )


def downgrade() -> None:
    op.drop_table("spec_tokenizers")
    op.drop_table("tokenizer_files")
