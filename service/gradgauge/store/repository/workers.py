"""Queries about worker processes: who is there, and how well their children are confined."""

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.store.tables import WorkerProcess


async def announce(
    session: AsyncSession, worker_id: str, *, host: str, sandbox: dict[str, str], stall_s: float
) -> None:
    """Say that the worker lives, and strike out those that have not said so for `stall_s`."""
    values = {"id": worker_id, "host": host, "sandbox": sandbox}
    statement = insert(WorkerProcess).values(**values)
    await session.execute(
        statement.on_conflict_do_update(index_elements=["id"], set_={"seen_at": func.now()})
    )
    await session.execute(delete(WorkerProcess).where(WorkerProcess.seen_at < _since(stall_s)))


async def leave(session: AsyncSession, worker_id: str) -> None:
    """Strike out a worker that stops in order."""
    await session.execute(delete(WorkerProcess).where(WorkerProcess.id == worker_id))


async def present(session: AsyncSession, stall_s: float) -> list[WorkerProcess]:
    """Return the workers that have said within `stall_s` that they live, the longest first."""
    statement = (
        select(WorkerProcess)
        .where(WorkerProcess.seen_at >= _since(stall_s))
        .order_by(WorkerProcess.id)
    )
    return list(await session.scalars(statement))


def _since(seconds: float) -> object:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
