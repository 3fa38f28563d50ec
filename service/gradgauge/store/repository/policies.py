"""Queries about policies."""

from typing import Any

from sqlalchemy import delete as sql_delete
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store.repository.architectures import digest
from gradgauge.store.tables import Policy, Project

Row = Policy
MOST = 1000


async def put(
    session: AsyncSession, project_id: str, *, name: str, document: dict[str, Any]
) -> tuple[Policy, bool]:
    """Return the project's policy of this name, holding `document` now, and whether it is new.

    Raises:
        Conflict: the project has as many as it may.
    """
    # One writer at a time in a project: versions grow by one, and the count holds.
    await session.execute(
        select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
    )
    sha256 = digest(document)
    held = await _find(session, project_id, name)
    if held is None:
        count = select(func.count()).where(Policy.project_id == project_id)
        if (await session.execute(count)).scalar_one() >= MOST:
            raise Conflict(
                "too_many_policies",
                f"this project has {MOST} policies",
                limit=f"policies={MOST}",
                hint="delete those that are not used",
            )
        held = Policy(project_id=project_id, name=name, document=document, sha256=sha256, version=1)
        session.add(held)
        added = True
    else:
        added = False
        if held.sha256 != sha256:
            held.document, held.sha256, held.version = document, sha256, held.version + 1
            held.updated_at = func.now()
    await session.flush()
    await session.refresh(held)
    return held, added


async def get(session: AsyncSession, project_id: str, name: str) -> Policy:
    """Return the policy.

    Raises:
        NotFound: the project holds no such policy.
    """
    found = await _find(session, project_id, name)
    if found is None:
        raise NotFound("policy_not_found", f"there is no policy {name[:64]}")
    return found


async def page(
    session: AsyncSession, project_id: str, *, limit: int, after: str | None = None
) -> list[Policy]:
    """Return up to `limit` policies by name, behind the name `after`."""
    statement = select(Policy).where(Policy.project_id == project_id)
    if after is not None:
        statement = statement.where(Policy.name > after)
    return list(await session.scalars(statement.order_by(Policy.name).limit(limit)))


async def delete(session: AsyncSession, project_id: str, name: str) -> None:
    """Delete the policy; raises NotFound where there is none."""
    await get(session, project_id, name)
    await session.execute(
        sql_delete(Policy).where(Policy.project_id == project_id, Policy.name == name)
    )


async def _find(session: AsyncSession, project_id: str, name: str) -> Policy | None:
    statement = select(Policy).where(Policy.project_id == project_id, Policy.name == name)
    return (await session.scalars(statement)).one_or_none()
