"""Worker processes and the state of their sandbox."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    op.create_table(
        "worker_processes",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("sandbox", sa.JSON(none_as_null=True), nullable=False),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker_processes")),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("worker_processes")
