"""Queries about projects and their API keys."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store import keys
from gradgauge.store.ids import new_id
from gradgauge.store.tables import ApiKey, Project

MOST_LIVE = 2


async def project_named(session: AsyncSession, name: str, *, create: bool = False) -> str:
    """Return the id of the project with this name, made where it is not there and may be.

    Raises:
        NotFound: there is no such project.
    """
    if create:
        await session.execute(
            insert(Project).values(id=new_id("prj"), name=name).on_conflict_do_nothing()
        )
    statement = select(Project.id).where(Project.name == name)
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("project_not_found", f"there is no project {name[:64]}")
    return found


async def create(
    session: AsyncSession,
    project_id: str,
    *,
    principal: str,
    scope: str,
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Return a new key of the project and its text, which is kept nowhere.

    Raises:
        Conflict: the principal has two live keys already.
    """
    await _alone(session, project_id)
    living = [row for row in await listed(session, project_id) if row.principal == principal]
    living = [row for row in living if lives(row)]
    if len(living) >= MOST_LIVE:
        raise Conflict(
            "too_many_keys",
            f"{principal} has {len(living)} live keys: {', '.join(row.id for row in living)}",
            limit=f"live_keys={MOST_LIVE}",
            hint="revoke one of them first",
        )
    made = keys.make()
    row = ApiKey(
        id=made.id,
        project_id=project_id,
        principal=principal,
        sha256=made.sha256,
        scope=scope,
        expires_at=expires_at,
    )
    session.add(row)
    await session.flush()
    return row, made.text


async def rotate(
    session: AsyncSession, project_id: str, key_id: str, *, overlap: timedelta
) -> tuple[ApiKey, str]:
    """Return a new key in the place of a live one, which ends after `overlap`.

    Raises:
        NotFound: the project has no such key.
        Conflict: it is revoked or expired, or its principal has two live keys.
    """
    old = await get(session, project_id, key_id)
    if not lives(old):
        raise Conflict("key_not_live", f"key {old.id} is revoked or expired")
    row, text = await create(
        session, project_id, principal=old.principal, scope=old.scope, expires_at=old.expires_at
    )
    end = datetime.now(UTC) + overlap
    old.expires_at = end if old.expires_at is None else min(end, old.expires_at)
    await session.flush()
    return row, text


async def revoke(session: AsyncSession, project_id: str, key_id: str) -> ApiKey:
    """Revoke a key; one that is revoked stays as it is.

    Raises:
        NotFound: the project has no such key.
    """
    row = await get(session, project_id, key_id)
    if row.revoked_at is None:
        row.revoked_at = datetime.now(UTC)
        await session.flush()
    return row


async def get(session: AsyncSession, project_id: str, key_id: str) -> ApiKey:
    """Return one key of the project, locked.

    Raises:
        NotFound: the project has no such key.
    """
    statement = select(ApiKey).where(ApiKey.project_id == project_id, ApiKey.id == key_id)
    found = (await session.scalars(statement.with_for_update())).one_or_none()
    if found is None:
        raise NotFound("key_not_found", f"there is no key {key_id[:64]}")
    return found


async def listed(session: AsyncSession, project_id: str) -> list[ApiKey]:
    """Return all keys of the project, oldest first."""
    statement = select(ApiKey).where(ApiKey.project_id == project_id)
    return list(await session.scalars(statement.order_by(ApiKey.created_at, ApiKey.id)))


async def page(
    session: AsyncSession, project_id: str, *, limit: int, after: str | None = None
) -> list[ApiKey]:
    """Return up to `limit` keys of the project by id, those behind the id `after`."""
    statement = select(ApiKey).where(ApiKey.project_id == project_id)
    if after is not None:
        statement = statement.where(ApiKey.id > after)
    return list(await session.scalars(statement.order_by(ApiKey.id).limit(limit)))


def lives(row: ApiKey) -> bool:
    """Whether the key is neither revoked nor expired."""
    return row.revoked_at is None and (row.expires_at is None or row.expires_at > datetime.now(UTC))


async def _alone(session: AsyncSession, project_id: str) -> None:
    """Let one transaction at a time count and add the project's keys."""
    await session.execute(select(Project.id).where(Project.id == project_id).with_for_update())
