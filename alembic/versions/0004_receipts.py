"""The ledger: what a rewrite answered, and an index for a caller's receipts."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("calls", sa.Column("text", sa.Text()))
    op.create_index("ix_wishes_caller", "wishes", ["caller", "created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_wishes_caller", "wishes")
    op.drop_column("calls", "text")
