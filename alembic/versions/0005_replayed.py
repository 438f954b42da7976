"""Receipts: whether an answer was told again, and an index for all wishes by time."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("wishes", sa.Column("replayed", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_wishes_created", "wishes", ["created_at", "id"])


def downgrade() -> None:
    op.drop_index("ix_wishes_created", "wishes")
    op.drop_column("wishes", "replayed")
