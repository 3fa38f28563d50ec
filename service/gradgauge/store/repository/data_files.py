"""Queries about batches of data that analyses are fed with."""

from typing import Literal

from sqlalchemy import delete as sql_delete
from sqlalchemy import exists, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store.tables import Analysis, DataFile

Row = DataFile


async def add(
    session: AsyncSession,
    data_id: str,
    project_id: str,
    *,
    name: str,
    sha256: str,
    size_bytes: int,
    blob_key: str,
) -> tuple[DataFile, bool]:
    """Return the project's data file with this content and whether it is new.

    Of two of one content at the same time the second waits for the first's transaction.
    """
    statement = (
        insert(DataFile)
        .values(
            id=data_id,
            project_id=project_id,
            name=name,
            sha256=sha256,
            size_bytes=size_bytes,
            blob_key=blob_key,
        )
        .on_conflict_do_nothing(index_elements=["project_id", "sha256"])
        .returning(DataFile)
    )
    added = (await session.scalars(statement)).one_or_none()
    if added is not None:
        return added, True
    held = select(DataFile).where(DataFile.project_id == project_id, DataFile.sha256 == sha256)
    return (await session.scalars(held)).one(), False


async def get(
    session: AsyncSession,
    project_id: str,
    data_id: str,
    *,
    lock: Literal["shared", "alone"] | None = None,
) -> DataFile:
    """Return the data file; with a `lock` nobody deletes it before the transaction ends.

    Raises:
        NotFound: the project holds no such data file.
    """
    statement = select(DataFile).where(DataFile.project_id == project_id, DataFile.id == data_id)
    if lock is not None:
        statement = statement.with_for_update(read=lock == "shared")
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("data_not_found", f"there is no data file {data_id[:64]}")
    return found


async def by_sha256(session: AsyncSession, project_id: str, sha256: str) -> DataFile | None:
    """Return the project's data file with this content."""
    statement = select(DataFile).where(DataFile.project_id == project_id, DataFile.sha256 == sha256)
    return (await session.scalars(statement)).one_or_none()


async def page(
    session: AsyncSession, project_id: str, *, limit: int, before: str | None = None
) -> list[DataFile]:
    """Return up to `limit` data files, newest first, older than the id `before`."""
    statement = select(DataFile).where(DataFile.project_id == project_id)
    if before is not None:
        statement = statement.where(DataFile.id < before)
    rows = await session.scalars(statement.order_by(DataFile.id.desc()).limit(limit))
    return list(rows)


async def of(session: AsyncSession, analysis: Analysis) -> DataFile | None:
    """Return what the analysis is fed with; None where it names nothing, or what is gone."""
    told = analysis.options.get("data")
    found = await session.get(DataFile, told) if isinstance(told, str) else None
    return found if found is not None and found.project_id == analysis.project_id else None


async def delete(session: AsyncSession, project_id: str, data_id: str) -> str:
    """Delete the data file and return the key of its blob.

    Raises:
        NotFound: the project holds no such data file.
        Conflict: analyses with it are queued or running.
    """
    found = await get(session, project_id, data_id, lock="alone")
    in_use = exists().where(
        Analysis.project_id == project_id,
        Analysis.state.in_(("queued", "running")),
        Analysis.options["data"].as_string() == found.id,
    )
    if (await session.execute(select(in_use))).scalar_one():
        raise Conflict(
            "data_in_use",
            f"data file {found.id} has queued or running analyses",
            hint="cancel them or wait for their end",
        )
    await session.execute(sql_delete(DataFile).where(DataFile.id == found.id))
    return found.blob_key
