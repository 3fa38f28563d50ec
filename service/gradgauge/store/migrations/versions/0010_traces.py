"""The trace that a job belongs to."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns."""
    for table in ("models", "analyses"):
        op.add_column(table, sa.Column("traceparent", sa.String(length=64), nullable=True))


def downgrade() -> None:
    """Drop them."""
    for table in ("models", "analyses"):
        op.drop_column(table, "traceparent")
