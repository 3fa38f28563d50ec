"""Queries of workers: who may write to a row now, and what they write.

A worker comes here with an id its own queue gave it, not with a client's, so these queries need no
project. What they need instead is the attempt's token, which fences out whoever was replaced.
"""

from typing import Any, cast

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.store.ids import new_token
from gradgauge.store.repository.analyses import notify, record
from gradgauge.store.tables import FINAL_STATES, Analysis, Architecture, Event, Model

Fields = dict[str, Any]


async def start_analysis(session: AsyncSession, analysis_id: str, job_id: int) -> Analysis | None:
    """Begin an attempt with a token of its own; None where the analysis has another job now."""
    statement = (
        update(Analysis)
        .where(Analysis.id == analysis_id, Analysis.job_id == job_id, Analysis.state == "queued")
        .values(
            state="running",
            token=new_token(),
            attempts=Analysis.attempts + 1,
            started_at=func.coalesce(Analysis.started_at, func.now()),
        )
        .returning(Analysis)
    )
    return await _recorded(session, statement)


async def advance(
    session: AsyncSession, analysis_id: str, token: str, *, stage: str, progress: float
) -> bool:
    """Write the attempt's progress; False where it has been replaced."""
    values = {"stage": stage, "progress": min(max(progress, 0.0), 1.0)}
    return await _recorded(session, _as_attempt(analysis_id, token, values)) is not None


async def end_analysis(session: AsyncSession, analysis_id: str, token: str, values: Fields) -> bool:
    """Write the attempt's end; False where it has been replaced, and then nothing is written."""
    ended = {**values, "token": None, "finished_at": func.now()}
    return await _recorded(session, _as_attempt(analysis_id, token, ended)) is not None


async def start_inspection(session: AsyncSession, model_id: str, job_id: int) -> Model | None:
    """Begin an inspection with a token of its own; None where there is nothing to inspect."""
    statement = (
        update(Model)
        .where(Model.id == model_id, Model.job_id == job_id, Model.state == "inspecting")
        .values(token=new_token())
        .returning(Model)
    )
    return (await session.scalars(statement)).one_or_none()


async def end_inspection(
    session: AsyncSession, model_id: str, token: str, values: Fields
) -> Model | None:
    """Write the inspection's end; None where it has been replaced."""
    statement = (
        update(Model)
        .where(Model.id == model_id, Model.token == token)
        .values(**values, token=None, updated_at=func.now())
        .returning(Model)
    )
    ended = (await session.scalars(statement)).one_or_none()
    if ended:
        await notify(session, ended.id)
    return ended


async def waiting_for(session: AsyncSession, model_id: str) -> list[Analysis]:
    """Return, locked, the analyses that have no job yet because the model was not inspected."""
    statement = (
        select(Analysis)
        .where(
            Analysis.model_id == model_id,
            Analysis.state == "queued",
            Analysis.job_id.is_(None),
        )
        .order_by(Analysis.id)
        .with_for_update()
    )
    return list(await session.scalars(statement))


async def source_of(session: AsyncSession, analysis: Analysis) -> Model | Architecture | None:
    """Return what the analysis analyses; None where it was deleted since."""
    if analysis.model_id is not None:
        return await session.get(Model, analysis.model_id)
    return await session.get(Architecture, analysis.architecture_id)


async def held(
    session: AsyncSession, kind: type[Analysis | Model], row_id: str, token: str
) -> Analysis | Model | None:
    """Return the row, locked, if this attempt still holds it."""
    statement = select(kind).where(kind.id == row_id, kind.token == token).with_for_update()
    found: Any = (await session.scalars(statement)).one_or_none()
    return cast("Analysis | Model | None", found)


async def holder(session: AsyncSession, job_id: int) -> Analysis | Model | None:
    """Return the row, locked, whose job this is now."""
    for kind in (Analysis, Model):
        statement = select(kind).where(kind.job_id == job_id).with_for_update()
        found: Any = (await session.scalars(statement)).one_or_none()
        if found is not None:
            return cast("Analysis | Model", found)
    return None


async def end(session: AsyncSession, analysis: Analysis, values: Fields) -> None:
    """End an analysis that this transaction has locked, whoever works on it."""
    await bind(session, analysis, {**values, "token": None, "finished_at": func.now()})


async def bind(session: AsyncSession, row: Analysis | Model, values: Fields) -> None:
    """Write to a row that this transaction has locked, and tell the listeners."""
    for name, value in values.items():
        setattr(row, name, value)
    await session.flush()
    await session.refresh(row)
    if isinstance(row, Analysis):
        await record(row, session)
    else:
        await notify(session, row.id)


async def abandoned(
    session: AsyncSession, stall_s: float, *, job_id: int | None = None
) -> list[int]:
    """Return the jobs nobody works on any more: all, or `job_id` if it is one.

    They are: jobs whose worker has been silent for `stall_s` or is gone; jobs a living worker
    fetched that long ago without anybody holding their row (its answer got lost on the way); and
    jobs that are at their end while their row is not.
    """
    found = await session.scalars(_ABANDONED, {"stall": stall_s, "only": job_id})
    return list(found)


async def close_job(session: AsyncSession, job_id: int) -> None:
    """Remove the job from the queue; whoever works on it finds it gone."""
    await session.execute(text("DELETE FROM procrastinate_jobs WHERE id = :id"), {"id": job_id})


async def dismiss_workers(session: AsyncSession, stall_s: float) -> None:
    """Strike out workers silent for `stall_s`; one that thaws finds itself gone and starts anew."""
    await session.execute(
        text("SELECT procrastinate_prune_stalled_workers_v1(:stall)"), {"stall": stall_s}
    )


async def forget(session: AsyncSession, *, keys_older_s: float, events_older_s: float) -> None:
    """Delete idempotency keys and finished analyses' events that are older than asked."""
    await session.execute(_OLD_KEYS, {"seconds": keys_older_s})
    ended = select(Analysis.id).where(
        Analysis.state.in_(FINAL_STATES),
        Analysis.finished_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, events_older_s),
    )
    await session.execute(delete(Event).where(Event.analysis_id.in_(ended)))


async def living_workers(session: AsyncSession, stall_s: float) -> int:
    """Return how many workers have given a sign of life within `stall_s`."""
    statement = text(
        "SELECT count(*) FROM procrastinate_workers"
        " WHERE last_heartbeat > now() - make_interval(secs => :stall)"
    )
    return int((await session.execute(statement, {"stall": stall_s})).scalar_one())


def _as_attempt(analysis_id: str, token: str, values: Fields) -> Any:
    return (
        update(Analysis)
        .where(Analysis.id == analysis_id, Analysis.token == token)
        .values(**values)
        .returning(Analysis)
    )


async def _recorded(session: AsyncSession, statement: Any) -> Analysis | None:
    fresh = statement.execution_options(populate_existing=True)
    row: Analysis | None = (await session.scalars(fresh)).one_or_none()
    return await record(row, session) if row else None


_OLD_KEYS = text(
    "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => :seconds)"
)

_ABANDONED = text("""
WITH unfinished AS (
    SELECT job_id, token FROM analyses WHERE state IN ('queued', 'running')
    UNION ALL
    SELECT job_id, token FROM models WHERE state = 'inspecting'
)
SELECT job.id
  FROM procrastinate_jobs job
  LEFT JOIN procrastinate_workers worker ON worker.id = job.worker_id
 WHERE job.status = 'doing'
   AND (CAST(:only AS bigint) IS NULL OR job.id = :only)
   AND (   worker.id IS NULL
        OR worker.last_heartbeat < now() - make_interval(secs => :stall)
        OR (NOT EXISTS (SELECT FROM unfinished
                         WHERE unfinished.job_id = job.id AND unfinished.token IS NOT NULL)
            AND (SELECT max(at) FROM procrastinate_events event
                  WHERE event.job_id = job.id AND event.type = 'started')
                < now() - make_interval(secs => :stall)))
 UNION
SELECT job_id
  FROM unfinished
 WHERE job_id IS NOT NULL
   AND (CAST(:only AS bigint) IS NULL OR job_id = :only)
   AND NOT EXISTS (SELECT FROM procrastinate_jobs job
                    WHERE job.id = unfinished.job_id AND job.status IN ('todo', 'doing'))
""")
