"""What a project may hold and do, the sizes of its reports, and which request made a row."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_QUOTAS = {
    "quota_bytes": sa.BigInteger(),
    "quota_models": sa.BigInteger(),
    "quota_queued": sa.BigInteger(),
    "quota_running": sa.BigInteger(),
}


def upgrade() -> None:
    """Add the columns; reports from before are not counted."""
    for name, kind in _QUOTAS.items():
        op.add_column("projects", sa.Column(name, kind, nullable=True))
    op.add_column("analyses", sa.Column("report_bytes", sa.BigInteger(), nullable=True))
    for table in ("analyses", "models"):
        op.add_column(table, sa.Column("request_id", sa.String(length=64), nullable=True))
    op.create_index("ix_analyses_report_key", "analyses", ["report_key"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_analyses_report_key", table_name="analyses")
    for table in ("analyses", "models"):
        op.drop_column(table, "request_id")
    op.drop_column("analyses", "report_bytes")
    for name in _QUOTAS:
        op.drop_column("projects", name)
