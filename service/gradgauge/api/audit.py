"""The project's audit log, for keys of scope admin."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from gradgauge.api.deps import Here, Limit, Project
from gradgauge.api.paging import paged
from gradgauge.schema.wire import Block, Text
from gradgauge.store.repository import audit as rows

router = APIRouter(prefix="/v1", tags=["audit"])


class AuditEntry(Block):
    """A write: who asked for it, by which key, and how it was answered."""

    id: int
    principal: Text
    key_id: Text
    method: Text
    path: Text
    status: int
    request_id: Text
    created_at: datetime


class AuditPage(Block):
    """Entries, newest first."""

    items: list[AuditEntry]
    next_cursor: int | None


@router.get("/audit")
async def list_audit(
    here: Here,
    project: Project,
    limit: Limit = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> AuditPage:
    """List the project's writes, newest first; needs scope admin. Without keys there are none."""
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, before=cursor)
    return paged(AuditPage, found, limit, _entry)


def _entry(row: object) -> AuditEntry:
    return AuditEntry.model_validate(row, from_attributes=True)
