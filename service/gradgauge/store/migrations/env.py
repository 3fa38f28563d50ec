"""What Alembic runs: our tables on the connection it was handed."""

from typing import Any, Literal

from alembic import context

from gradgauge.store.tables import Display, Table


def _ours(_object: Any, name: str | None, kind: str, *_rest: Any) -> bool:
    """Leave the queue's tables, and the note of their version, to the queue's schema manager."""
    return not (kind == "table" and name is not None and name.startswith("procrastinate_"))


def _rendered(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write a column's type as the database knows it: a revision must not lean on our classes."""
    return "sa.String(length=255)" if kind == "type" and isinstance(item, Display) else False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    include_object=_ours,
    render_item=_rendered,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
