"""Queries about what a project holds and may hold."""

from dataclasses import dataclass, fields

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.store.repository import uploads
from gradgauge.store.tables import Analysis, Architecture, DataFile, Model, Project


@dataclass(frozen=True, kw_only=True)
class Quotas:
    """What a project may hold and do; None: as much as there is room for."""

    bytes: int | None = None
    """Of its models, reports and uploads that are not complete."""
    models: int | None = None
    """Specs and data files count too."""
    queued: int | None = None
    """Analyses that wait."""
    running: int | None = None
    """Analyses at once, over all workers."""

    @property
    def bounds_storage(self) -> bool:
        """Whether an upload has to be counted."""
        return self.bytes is not None or self.models is not None


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What a project holds and does now."""

    bytes: int
    models: int
    queued: int
    running: int


NAMES = tuple(each.name for each in fields(Quotas))


async def quotas_of(
    session: AsyncSession, project_id: str, usual: Quotas, *, lock: bool = False
) -> Quotas:
    """Return the project's quotas: its own, or the `usual`; with `lock` one at a time counts."""
    statement = select(*(getattr(Project, f"quota_{name}") for name in NAMES)).where(
        Project.id == project_id
    )
    if lock:
        statement = statement.with_for_update(key_share=True)
    own = (await session.execute(statement)).one()
    return Quotas(
        **{
            name: getattr(usual, name) if value is None else value or None
            for name, value in zip(NAMES, own, strict=True)
        }
    )


async def set_quotas(
    session: AsyncSession, project_id: str, changes: dict[str, int | None]
) -> None:
    """Give the project quotas of its own: 0 is no limit, None the usual one."""
    values = {f"quota_{name}": value for name, value in changes.items()}
    await session.execute(update(Project).where(Project.id == project_id).values(**values))


async def usage_of(session: AsyncSession, project_id: str) -> Usage:
    """Return what the project holds and does."""
    models = select(
        func.count().label("models"), func.coalesce(func.sum(Model.size_bytes), 0).label("stored")
    ).where(Model.project_id == project_id)
    held = (await session.execute(models)).one()
    counted = select(func.count()).where(Architecture.project_id == project_id)
    specs = (await session.execute(counted)).scalar_one()
    fed = select(
        func.count().label("files"), func.coalesce(func.sum(DataFile.size_bytes), 0).label("stored")
    ).where(DataFile.project_id == project_id)
    data = (await session.execute(fed)).one()
    return Usage(
        bytes=int(held.stored)
        + int(data.stored)
        + await _report_bytes(session, project_id)
        + await uploads.open_bytes(session, project_id),
        models=held.models + specs + data.files,
        queued=await in_state(session, project_id, "queued"),
        running=await in_state(session, project_id, "running"),
    )


async def in_state(session: AsyncSession, project_id: str, state: str) -> int:
    """Return how many of the project's analyses are in `state`."""
    statement = select(func.count()).where(
        Analysis.project_id == project_id, Analysis.state == state
    )
    return (await session.execute(statement)).scalar_one()


async def _report_bytes(session: AsyncSession, project_id: str) -> int:
    statement = select(func.coalesce(func.sum(Analysis.report_bytes), 0)).where(
        Analysis.project_id == project_id
    )
    return int((await session.execute(statement)).scalar_one() or 0)
