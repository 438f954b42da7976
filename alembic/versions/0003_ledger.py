"""The ledger: processes, wishes, calls, pictures, limits and counters.

Money is in micro-USD, times are milliseconds since 1970 (UTC).
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "processes",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("heartbeat_at", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "wishes",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("caller", sa.String(255), nullable=False),
        sa.Column("route", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255)),
        sa.Column("fingerprint", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("process", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.BigInteger()),
        sa.Column("body", sa.Text()),
        sa.Column("expires_at", sa.BigInteger()),
        sa.UniqueConstraint("caller", "route", "key", name="uq_wishes_key"),
    )
    op.create_index("ix_wishes_running", "wishes", ["process"], **only("state = 'running'"))
    op.create_index("ix_wishes_expiring", "wishes", ["expires_at"], **only("key IS NOT NULL"))
    op.create_table(
        "calls",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("wish", sa.String(64), sa.ForeignKey("wishes.id", ondelete="CASCADE"), nullable=False),
        sa.Column("slot", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("operation", sa.String(64), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.Column("samples", sa.BigInteger(), nullable=False),
        sa.Column("priced", sa.Boolean(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("charged", sa.BigInteger(), nullable=False),
        sa.Column("made", sa.BigInteger(), nullable=False),
        sa.Column("process", sa.String(64), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger()),
        sa.Column("done_at", sa.BigInteger()),
        sa.Column("bucket", sa.Text()),
        sa.Column("stem", sa.Text()),
        sa.UniqueConstraint("wish", "slot", "attempt", name="uq_calls_slot"),
    )
    op.create_index(
        "ix_calls_open", "calls", ["process", "deadline_at"], **only("state IN ('reserved', 'sent')")
    )
    op.create_table(
        "pictures",
        sa.Column("call", sa.String(64), sa.ForeignKey("calls.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("number", sa.BigInteger(), primary_key=True),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("mime_type", sa.String(64), nullable=False),
    )
    op.create_table(
        "limits",
        sa.Column("scope", sa.String(255), primary_key=True),
        sa.Column("unit", sa.String(16), primary_key=True),
        sa.Column("period", sa.String(16), primary_key=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "counters",
        sa.Column("scope", sa.String(255), primary_key=True),
        sa.Column("period", sa.String(10), primary_key=True),
        sa.Column("spent_micros", sa.BigInteger(), nullable=False),
        sa.Column("reserved_micros", sa.BigInteger(), nullable=False),
        sa.Column("spent_pictures", sa.BigInteger(), nullable=False),
        sa.Column("reserved_pictures", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    for table in ("counters", "limits", "pictures", "calls", "wishes", "processes"):
        op.drop_table(table)


def only(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}
