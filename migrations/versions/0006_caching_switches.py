"""When caching was switched off and on for a corpus under a spec."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name in ("disabled_at", "enabled_at"):
        op.add_column(
            "corpus_specs", sa.Column(name, sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True)
        )


def downgrade() -> None:
    for name in ("enabled_at", "disabled_at"):
        op.drop_column("corpus_specs", name)
