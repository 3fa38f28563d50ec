"""Queries about stored specs."""

import hashlib
import json
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store.ids import new_id
from gradgauge.store.tables import FINAL_STATES, Analysis, Architecture


async def add(
    session: AsyncSession, project_id: str, *, name: str, spec: dict[str, Any]
) -> tuple[Architecture, bool]:
    """Return the project's architecture with this spec and whether it is new."""
    sha256 = digest(spec)
    statement = (
        insert(Architecture)
        .values(id=new_id("arc"), project_id=project_id, name=name, sha256=sha256, spec=spec)
        .on_conflict_do_nothing(index_elements=["project_id", "sha256"])
        .returning(Architecture)
    )
    added = (await session.scalars(statement)).one_or_none()
    if added:
        return added, True
    held = select(Architecture).where(
        Architecture.project_id == project_id, Architecture.sha256 == sha256
    )
    return (await session.scalars(held)).one(), False


async def get(
    session: AsyncSession, project_id: str, architecture_id: str, *, lock: bool = False
) -> Architecture:
    """Return the architecture.

    Raises:
        NotFound: the project holds no such architecture.
    """
    statement = select(Architecture).where(
        Architecture.project_id == project_id, Architecture.id == architecture_id
    )
    if lock:
        statement = statement.with_for_update()
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("architecture_not_found", f"there is no architecture {architecture_id[:64]}")
    return found


async def page(
    session: AsyncSession, project_id: str, *, limit: int, before: str | None = None
) -> list[Architecture]:
    """Return up to `limit` architectures, newest first, older than the id `before`."""
    statement = select(Architecture).where(Architecture.project_id == project_id)
    if before is not None:
        statement = statement.where(Architecture.id < before)
    rows = await session.scalars(statement.order_by(Architecture.id.desc()).limit(limit))
    return list(rows)


async def delete(session: AsyncSession, project_id: str, architecture_id: str) -> None:
    """Delete the architecture; its analyses keep their reports.

    Raises:
        NotFound: the project holds no such architecture.
        Conflict: analyses of it are queued or running.
    """
    found = await get(session, project_id, architecture_id, lock=True)
    in_use = exists().where(
        Analysis.architecture_id == found.id, Analysis.state.not_in(FINAL_STATES)
    )
    if (await session.execute(select(in_use))).scalar_one():
        raise Conflict(
            "architecture_in_use",
            f"architecture {found.id} has queued or running analyses",
            hint="cancel them or wait for their end",
        )
    await session.delete(found)


def digest(spec: dict[str, Any]) -> str:
    """Return the sha256 of a spec's canonical JSON."""
    text = json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
