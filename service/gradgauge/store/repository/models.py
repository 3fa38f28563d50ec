"""Queries about uploads."""

from dataclasses import dataclass

from sqlalchemy import delete as sql_delete
from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store.tables import FINAL_STATES, Analysis, Model


@dataclass(frozen=True, kw_only=True)
class NewModel:
    """What is known of an upload before its inspection."""

    id: str
    project_id: str
    name: str
    sha256: str
    size_bytes: int
    blob_key: str
    source: str | None = None
    request_id: str | None = None
    traceparent: str | None = None


async def add(session: AsyncSession, new: NewModel) -> tuple[Model, bool]:
    """Return the project's model with this content and whether it is `new`.

    Of two uploads of one content at the same time the second waits for the first's transaction.
    """
    statement = (
        insert(Model)
        .values(**vars(new))
        .on_conflict_do_nothing(index_elements=["project_id", "sha256"])
        .returning(Model)
    )
    added = (await session.scalars(statement)).one_or_none()
    if added:
        return added, True
    held = await by_sha256(session, new.project_id, new.sha256)
    if held is None:  # deleted since the conflict
        return await add(session, new)
    return held, False


async def get(
    session: AsyncSession, project_id: str, model_id: str, *, lock: bool = False
) -> Model:
    """Return the model; with `lock` its state cannot change before the transaction ends.

    Raises:
        NotFound: the project holds no such model.
    """
    statement = select(Model).where(Model.project_id == project_id, Model.id == model_id)
    if lock:
        statement = statement.with_for_update(read=True).execution_options(populate_existing=True)
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("model_not_found", f"there is no model {model_id[:64]}")
    return found


async def by_sha256(session: AsyncSession, project_id: str, sha256: str) -> Model | None:
    """Return the project's model with this content."""
    statement = select(Model).where(Model.project_id == project_id, Model.sha256 == sha256)
    return (await session.scalars(statement)).one_or_none()


async def page(
    session: AsyncSession,
    project_id: str,
    *,
    limit: int,
    before: str | None = None,
    state: str | None = None,
) -> list[Model]:
    """Return up to `limit` models, newest first, older than the id `before`."""
    statement = select(Model).where(Model.project_id == project_id)
    if before is not None:
        statement = statement.where(Model.id < before)
    if state is not None:
        statement = statement.where(Model.state == state)
    rows = await session.scalars(statement.order_by(Model.id.desc()).limit(limit))
    return list(rows)


async def delete(session: AsyncSession, project_id: str, model_id: str) -> str:
    """Delete the model and return the key of its blob; its analyses keep their reports.

    Raises:
        NotFound: the project holds no such model.
        Conflict: analyses of it are queued or running.
    """
    key = await in_peace(session, project_id, model_id)
    await session.execute(sql_delete(Model).where(Model.id == model_id))
    return key


async def in_peace(session: AsyncSession, project_id: str, model_id: str) -> str:
    """Lock the model, of which nothing is queued or running, and return the key of its blob.

    Raises:
        NotFound: the project holds no such model.
        Conflict: analyses of it are queued or running.
    """
    statement = select(Model).where(Model.project_id == project_id, Model.id == model_id)
    found = (await session.scalars(statement.with_for_update())).one_or_none()
    if found is None:
        raise NotFound("model_not_found", f"there is no model {model_id[:64]}")
    in_use = exists().where(Analysis.model_id == found.id, Analysis.state.not_in(FINAL_STATES))
    if (await session.execute(select(in_use))).scalar_one():
        raise Conflict(
            "model_in_use",
            f"model {found.id} has queued or running analyses",
            hint="cancel them or wait for their end",
        )
    return found.blob_key
