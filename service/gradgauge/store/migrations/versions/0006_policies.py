"""Policies by name."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    now = sa.text("now()")
    op.create_table(
        "policies",
        sa.Column("project_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=64, collation="C"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_policies_project_id")
        ),
        sa.PrimaryKeyConstraint("project_id", "name", name=op.f("pk_policies")),
    )


def downgrade() -> None:
    """Drop the table."""
    op.drop_table("policies")
