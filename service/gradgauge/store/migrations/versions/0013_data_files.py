"""Batches of the project's own data, which count as what it holds."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_WITHOUT = """
    SELECT (SELECT coalesce(sum(size_bytes), 0) FROM models WHERE project_id = _project_id)
         + (SELECT coalesce(sum(report_bytes), 0) FROM analyses WHERE project_id = _project_id)
         + (SELECT coalesce(sum(part.size_bytes), 0)
              FROM upload_parts part JOIN uploads whole ON whole.id = part.upload_id
             WHERE whole.project_id = _project_id AND whole.state = 'open')
"""
_DATA = """
         + (SELECT coalesce(sum(size_bytes), 0) FROM data_files WHERE project_id = _project_id)
"""


def _held(body: str) -> str:
    return (
        "CREATE OR REPLACE FUNCTION gradgauge_held_bytes(_project_id text) RETURNS numeric"
        f" LANGUAGE sql STABLE AS $$ {body} $$"
    )


def upgrade() -> None:
    """Create the table and have its bytes counted."""
    op.create_table(
        "data_files",
        sa.Column("id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("project_id", sa.String(length=40, collation="C"), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("blob_key", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_data_files_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_files")),
        sa.UniqueConstraint("project_id", "sha256", name=op.f("uq_data_files_project_id_sha256")),
    )
    op.create_index(
        "ix_data_files_project_id_id",
        "data_files",
        ["project_id", sa.literal_column("id DESC")],
        unique=False,
    )
    op.execute(_held(_WITHOUT + _DATA))


def downgrade() -> None:
    """Drop it."""
    op.execute(_held(_WITHOUT))
    op.drop_table("data_files")
