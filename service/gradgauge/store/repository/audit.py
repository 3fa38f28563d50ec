"""The audit log: who asked for which write, when, and how it was answered. Rows are only added."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.store.tables import AuditEntry


@dataclass(frozen=True, kw_only=True)
class Written:
    """One write as it was answered."""

    project_id: str
    principal: str
    key_id: str
    method: str
    path: str
    status: int
    request_id: str


async def page(
    session: AsyncSession, project_id: str, *, limit: int, before: int | None = None
) -> list[AuditEntry]:
    """Return up to `limit` entries of the project, newest first, older than the id `before`."""
    statement = select(AuditEntry).where(AuditEntry.project_id == project_id)
    if before is not None:
        statement = statement.where(AuditEntry.id < before)
    rows = await session.scalars(statement.order_by(AuditEntry.id.desc()).limit(limit))
    return list(rows)
