"""Queries about uploads in parts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store.ids import new_id
from gradgauge.store.tables import PartedUpload, UploadPart

Row = PartedUpload
PartRow = UploadPart
MOST_OPEN = 100


async def add(
    session: AsyncSession, project_id: str, *, name: str, size_bytes: int | None, sha256: str | None
) -> PartedUpload:
    """Return a new upload.

    Raises:
        Conflict: the project has as many open as it may.
    """
    count = select(func.count()).where(
        PartedUpload.project_id == project_id, PartedUpload.state == "open"
    )
    if (await session.execute(count)).scalar_one() >= MOST_OPEN:
        raise Conflict(
            "too_many_uploads",
            f"this project has {MOST_OPEN} uploads that are not complete",
            limit=f"open_uploads={MOST_OPEN}",
            hint="complete or delete them",
        )
    row = PartedUpload(
        id=new_id("upl"), project_id=project_id, name=name, size_bytes=size_bytes, sha256=sha256
    )
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def get(
    session: AsyncSession, project_id: str, upload_id: str, *, lock: bool = False
) -> PartedUpload:
    """Return the upload; with `lock` it cannot change before the transaction ends.

    Raises:
        NotFound: the project holds no such upload, or it was abandoned.
    """
    statement = select(PartedUpload).where(
        PartedUpload.project_id == project_id,
        PartedUpload.id == upload_id,
        PartedUpload.state != "abandoned",
    )
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("upload_not_found", f"there is no upload {upload_id[:64]}")
    return found


async def parts(session: AsyncSession, upload_id: str) -> list[UploadPart]:
    """Return the parts that have come, by number."""
    statement = select(UploadPart).where(UploadPart.upload_id == upload_id)
    return list(await session.scalars(statement.order_by(UploadPart.number)))


async def put_part(session: AsyncSession, upload_id: str, values: dict[str, Any]) -> str | None:
    """Keep a part in the place of an earlier one of its number; return the earlier one's blob."""
    held = select(UploadPart.blob_key).where(
        UploadPart.upload_id == upload_id, UploadPart.number == values["number"]
    )
    earlier = (await session.scalars(held)).one_or_none()
    row = {"upload_id": upload_id, **values}
    statement = insert(UploadPart).values(row)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["upload_id", "number"], set_=values)
    )
    return earlier


async def change(session: AsyncSession, upload_id: str, **values: Any) -> None:
    """Write fields of the upload, which is alive from now on again."""
    await session.execute(
        update(PartedUpload)
        .where(PartedUpload.id == upload_id)
        .values(**values, touched_at=func.now())
    )


async def abandon(session: AsyncSession, *, older_s: float) -> list[tuple[str, str]]:
    """Close uploads that nobody has touched for so long; return project and id of all closed ones.

    Those that an earlier call closed, and whose files are perhaps still there, come again.
    """
    old = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, older_s)
    await session.execute(
        update(PartedUpload)
        .where(PartedUpload.touched_at < old, PartedUpload.state != "abandoned")
        .values(state="abandoned")
    )
    closed = select(PartedUpload.project_id, PartedUpload.id).where(
        PartedUpload.state == "abandoned"
    )
    return [(project, name) for project, name in await session.execute(closed)]


async def drop(session: AsyncSession, upload_ids: Sequence[str]) -> None:
    """Delete uploads and what is known of their parts."""
    await session.execute(delete(PartedUpload).where(PartedUpload.id.in_(upload_ids)))


async def drop_parts(session: AsyncSession, upload_id: str) -> None:
    """Forget an upload's parts."""
    await session.execute(delete(UploadPart).where(UploadPart.upload_id == upload_id))


async def open_bytes(session: AsyncSession, project_id: str) -> int:
    """Return how many bytes of parts wait for the rest of their uploads."""
    statement = (
        select(func.coalesce(func.sum(UploadPart.size_bytes), 0))
        .join(PartedUpload, PartedUpload.id == UploadPart.upload_id)
        .where(PartedUpload.project_id == project_id, PartedUpload.state == "open")
    )
    return int((await session.execute(statement)).scalar_one() or 0)
