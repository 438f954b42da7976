"""API keys. Times are milliseconds since 1970 (UTC)."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("user", sa.String(36), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("operations", sa.JSON()),
        sa.Column("models", sa.JSON()),
        sa.Column("expires_at", sa.BigInteger()),
        sa.Column("revoked_at", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("api_keys")
