"""Queries of the clean-up: what is old enough to go, and which files are nobody's."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import delete as sql_delete
from sqlalchemy import exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.store.repository import analyses
from gradgauge.store.tables import FINAL_STATES, Analysis, DataFile, Model

# Only what this service is known to write under these names: a store may hold more.
_MODEL = re.compile(r"[^/]+/models/(mdl_[0-9a-z]{26})(\.[0-9a-f]{16})?")
_DATA = re.compile(r"[^/]+/data/(dat_[0-9a-z]{26})(\.[0-9a-f]{16})?")
_REPORT = re.compile(r"[^/]+/analyses/(ana_[0-9a-z]{26})/[0-9a-f]{32}\.json")


@dataclass(frozen=True)
class Batch:
    """Rows that were deleted, and the files to delete after the commit."""

    rows: int
    keys: list[str]


class Taken(Protocol):
    """Deletes up to `limit` rows older than `older_s` that nobody else has locked."""

    __name__: str

    async def __call__(self, session: AsyncSession, *, older_s: float, limit: int) -> Batch:
        """Return what was deleted."""


async def expired_analyses(session: AsyncSession, *, older_s: float, limit: int) -> Batch:
    """Delete analyses that ended that long ago."""
    statement = (
        select(Analysis)
        .where(Analysis.state.in_(FINAL_STATES), Analysis.finished_at < _ago(older_s))
        .order_by(Analysis.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = list(await session.scalars(statement))
    keys = await analyses.drop(session, rows) if rows else {}
    return Batch(len(rows), sorted(set(keys.values())))


async def expired_models(session: AsyncSession, *, older_s: float, limit: int) -> Batch:
    """Delete models uploaded that long ago of which no analysis is open or younger than that."""
    in_use = exists().where(
        Analysis.model_id == Model.id,
        or_(Analysis.state.not_in(FINAL_STATES), Analysis.created_at >= _ago(older_s)),
    )
    statement = (
        select(Model)
        .where(Model.state != "inspecting", Model.created_at < _ago(older_s), ~in_use)
        .order_by(Model.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = list(await session.scalars(statement))
    # Looked at again under the lock: an analysis may have been asked for meanwhile.
    going = select(Model).where(Model.id.in_([row.id for row in rows]), ~in_use)
    rows = list(await session.scalars(going))
    await session.execute(sql_delete(Model).where(Model.id.in_([row.id for row in rows])))
    return Batch(len(rows), [row.blob_key for row in rows])


async def expired_data(session: AsyncSession, *, older_s: float, limit: int) -> Batch:
    """Delete data uploaded that long ago with which no analysis is open or younger than that."""
    in_use = exists().where(
        Analysis.project_id == DataFile.project_id,
        Analysis.options["data"].as_string() == DataFile.id,
        or_(Analysis.state.not_in(FINAL_STATES), Analysis.created_at >= _ago(older_s)),
    )
    statement = (
        select(DataFile)
        .where(DataFile.created_at < _ago(older_s), ~in_use)
        .order_by(DataFile.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    rows = list(await session.scalars(statement))
    # Looked at again under the lock: an analysis may have been asked for meanwhile.
    going = select(DataFile).where(DataFile.id.in_([row.id for row in rows]), ~in_use)
    rows = list(await session.scalars(going))
    await session.execute(sql_delete(DataFile).where(DataFile.id.in_([row.id for row in rows])))
    return Batch(len(rows), [row.blob_key for row in rows])


async def unnamed(session: AsyncSession, keys: Sequence[str]) -> list[str]:
    """Return those of `keys` that look like ours and that no row names or may still write."""
    models = [key for key in keys if _MODEL.fullmatch(key)]
    data = [key for key in keys if _DATA.fullmatch(key)]
    reports = {key: found[1] for key in keys if (found := _REPORT.fullmatch(key))}
    named = set(await session.scalars(select(Model.blob_key).where(Model.blob_key.in_(models))))
    named |= set(
        await session.scalars(select(Analysis.report_key).where(Analysis.report_key.in_(reports)))
    )
    named |= set(
        await session.scalars(select(DataFile.blob_key).where(DataFile.blob_key.in_(data)))
    )
    still_open = select(Analysis.id).where(
        Analysis.id.in_(set(reports.values())), Analysis.state.not_in(FINAL_STATES)
    )
    at_work = set(await session.scalars(still_open))
    left = [key for key in (*models, *data) if key not in named]
    return left + [key for key, of in reports.items() if key not in named and of not in at_work]


def _ago(seconds: float) -> Any:
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, seconds)
