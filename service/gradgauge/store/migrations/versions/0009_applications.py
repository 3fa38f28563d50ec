"""Recommendations that are applied: analyses that end with a model instead of a report."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("analyses", sa.Column("application", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Delete the rows that only it explains, then drop it."""
    op.execute("DELETE FROM analyses WHERE application IS NOT NULL")
    op.drop_column("analyses", "application")
