"""Where a model was fetched from."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("models", sa.Column("source", sa.Text(), nullable=True))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("models", "source")
