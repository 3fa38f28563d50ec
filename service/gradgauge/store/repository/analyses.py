"""Queries a client causes about analyses, their events and its idempotency keys."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    String,
    Table,
    and_,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    update,
)
from sqlalchemy import delete as sql_delete
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from gradgauge.errors import Conflict, KeyInFlight, KeyReused, NotFound
from gradgauge.store.ids import new_id
from gradgauge.store.repository import webhooks
from gradgauge.store.tables import FINAL_STATES, Analysis, Event, IdempotencyKey, Model

Row = Analysis

# One channel for all analyses and models; its payload is an id and nothing else.
CHANNEL = "gradgauge_changed"


@dataclass(frozen=True, kw_only=True)
class NewAnalysis:
    """What is to be analysed, and how."""

    project_id: str
    name: str
    options: dict[str, Any]
    cache_key: str
    model_id: str | None = None
    architecture_id: str | None = None
    application: dict[str, Any] | None = None
    request_id: str | None = None
    traceparent: str | None = None
    id: str = field(default_factory=lambda: new_id("ana"))


async def add(session: AsyncSession, new: NewAnalysis, *, job_id: int | None = None) -> Analysis:
    """Return a new queued analysis, with its first event; `new.id` is its id."""
    made: Analysis = (await session.scalars(_ADD, {**vars(new), "job_id": job_id})).one()
    return made


async def add_cached(session: AsyncSession, new: NewAnalysis) -> Analysis | None:
    """Return a new analysis that has succeeded already, with an earlier one's report.

    That is the project's newest of the same content, options and version; None where there is
    none. Nobody deletes it before the transaction ends; one statement does it all.
    """
    made: Analysis | None = (await session.scalars(ADD_CACHED, vars(new))).one_or_none()
    return made


async def get(
    session: AsyncSession, project_id: str, analysis_id: str, *, lock: bool = False
) -> Analysis:
    """Return the analysis; with `lock` nobody else writes to it before the transaction ends.

    Raises:
        NotFound: the project holds no such analysis.
    """
    statement = _LOCKED if lock else _ONE
    asked = {"project": project_id, "id": analysis_id}
    found = (await session.scalars(statement, asked)).one_or_none()
    if found is None:
        raise NotFound("analysis_not_found", f"there is no analysis {analysis_id[:64]}")
    return found


async def page(
    session: AsyncSession,
    project_id: str,
    *,
    limit: int,
    before: str | None = None,
    state: str | None = None,
    verdict: str | None = None,
    model_id: str | None = None,
    architecture_id: str | None = None,
) -> list[Analysis]:
    """Return up to `limit` analyses, newest first, older than the id `before`; no applications."""
    statement = select(Analysis).where(
        Analysis.project_id == project_id, Analysis.application.is_(None)
    )
    if before is not None:
        statement = statement.where(Analysis.id < before)
    wanted = {
        Analysis.state: state,
        Analysis.verdict: verdict,
        Analysis.model_id: model_id,
        Analysis.architecture_id: architecture_id,
    }
    for column, value in wanted.items():
        if value is not None:
            statement = statement.where(column == value)
    rows = await session.scalars(statement.order_by(Analysis.id.desc()).limit(limit))
    return list(rows)


async def applied(session: AsyncSession, project_id: str, cache_key: str) -> Analysis | None:
    """Return the newest application of the same recommendation that runs or whose model is there.

    Of two that are asked for at the same time the second waits for the first's transaction.
    """
    lock = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
    await session.execute(lock, {"name": f"{project_id}/{cache_key}"})
    kept = select(Model.id).where(Model.project_id == project_id)
    made = Analysis.application["model_id"].as_string()
    statement = (
        select(Analysis)
        .where(
            Analysis.project_id == project_id,
            Analysis.cache_key == cache_key,
            Analysis.application.is_not(None),
            or_(
                Analysis.state.in_(("queued", "running")),
                and_(Analysis.state == "succeeded", made.in_(kept)),
            ),
        )
        .order_by(Analysis.id.desc())
        .limit(1)
    )
    return (await session.scalars(statement)).one_or_none()


async def delete(session: AsyncSession, project_id: str, analysis_id: str) -> str | None:
    """Delete the analysis; return the key of its report where no other analysis has it too.

    Raises:
        NotFound: the project holds no such analysis.
        Conflict: it is queued or running.
    """
    row = await get(session, project_id, analysis_id, lock=True)
    if row.state not in FINAL_STATES:
        raise Conflict(
            "analysis_in_progress", f"analysis {row.id} is {row.state}", hint="cancel it first"
        )
    return (await drop(session, [row])).get(row.id)


async def of_model(session: AsyncSession, model_id: str) -> list[Analysis]:
    """Return, locked, all analyses of a model."""
    statement = select(Analysis).where(Analysis.model_id == model_id).order_by(Analysis.id)
    return list(await session.scalars(statement.with_for_update()))


async def drop(session: AsyncSession, rows: Sequence[Analysis]) -> dict[str, str]:
    """Delete locked rows; return the report keys, by row, that no other analysis has."""
    going = [row.id for row in rows]
    keys = {row.id: row.report_key for row in rows if row.report_key is not None}
    heirs = {
        key: heir
        for heir, key in await session.execute(
            select(func.max(Analysis.id), Analysis.report_key)
            .where(Analysis.report_key.in_(set(keys.values())), Analysis.id.not_in(going))
            .group_by(Analysis.report_key)
        )
    }
    for row in rows:
        if row.report_key in heirs and row.report_bytes is not None:
            # The report stays, and somebody has to answer for its size.
            heir = update(Analysis).where(Analysis.id == heirs[row.report_key])
            await session.execute(heir.values(report_bytes=row.report_bytes))
    await session.execute(sql_delete(Analysis).where(Analysis.id.in_(going)))
    return {row_id: key for row_id, key in keys.items() if key not in heirs}


async def waiting(session: AsyncSession, project_id: str) -> int:
    """Return how many of the project's analyses wait for a worker."""
    statement = select(func.count()).where(
        Analysis.project_id == project_id, Analysis.state == "queued"
    )
    return (await session.execute(statement)).scalar_one()


async def events(
    session: AsyncSession, project_id: str, analysis_id: str, *, after: int = 0
) -> list[Event]:
    """Return the analysis's events with an id above `after`, oldest first."""
    statement = (
        select(Event)
        .join(Analysis, Analysis.id == Event.analysis_id)
        .where(
            Analysis.project_id == project_id,
            Event.analysis_id == analysis_id,
            Event.id > after,
        )
        .order_by(Event.id)
    )
    return list(await session.scalars(statement))


async def record(analysis: Analysis, session: AsyncSession) -> Analysis:
    """Write down what the analysis's row says now as an event, and tell the listeners.

    To be called by whoever has just written the row: its lock makes ids grow in commit order.
    """
    event = _event(
        literal(analysis.id),
        literal(analysis.state),
        literal(analysis.stage, String),
        literal(analysis.progress),
    )
    await session.execute(select(func.pg_notify(CHANNEL, event.c.analysis_id)))
    if analysis.state in FINAL_STATES:
        await webhooks.announce(session, analysis)
    return analysis


async def notify(session: AsyncSession, row_id: str) -> None:
    """Tell the listeners, once this transaction is committed, that a row has changed."""
    await session.execute(select(func.pg_notify(CHANNEL, row_id)))


async def recall(
    session: AsyncSession, project_id: str, key: str, body_sha256: str
) -> Analysis | None:
    """Return what the key's first request made, and keep the key to us until we commit.

    Raises:
        KeyInFlight: the key's first request has not been committed yet.
        KeyReused: the first request had another body.
    """
    lock = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
    mine = await session.execute(lock, {"name": f"{project_id}/{key}"})
    if not mine.scalar_one():
        raise KeyInFlight(
            "idempotency_in_flight",
            "the first request with this Idempotency-Key is still being answered",
            hint="try again shortly",
        )
    statement = select(IdempotencyKey).where(
        IdempotencyKey.project_id == project_id, IdempotencyKey.key == key
    )
    known = (await session.scalars(statement)).one_or_none()
    if known is None:
        return None
    if known.body_sha256 != body_sha256:
        raise KeyReused(
            "idempotency_key_reused",
            "this Idempotency-Key was used before with another body",
            hint="send a new key with a new request",
        )
    return await get(session, project_id, known.analysis_id)


async def remember(
    session: AsyncSession, project_id: str, key: str, body_sha256: str, analysis_id: str
) -> None:
    """Bind the key to the analysis its first request made."""
    values = {"project_id": project_id, "key": key}
    bound = {"body_sha256": body_sha256, "analysis_id": analysis_id}
    await session.execute(upsert(IdempotencyKey).values(**values, **bound))


def _event(*values: Any) -> Any:
    """The statement that writes an event, of expressions for its columns."""
    columns = ["analysis_id", "state", "stage", "progress"]
    written = insert(Event).from_select(columns, select(*values))
    return written.returning(Event.analysis_id).cte("event")


_TABLE = cast("Table", Analysis.__table__)
_GIVEN = {
    each.name: bindparam(each.name, type_=_TABLE.c[each.name].type) for each in fields(NewAnalysis)
}
_ONE = select(Analysis).where(
    Analysis.project_id == bindparam("project"), Analysis.id == bindparam("id")
)
_LOCKED = _ONE.with_for_update().execution_options(populate_existing=True)


def _recorded(written: Any, *, ended: bool) -> Any:
    """`written` (an INSERT) with its first event and all that are told of it, as one statement."""
    made = written.returning(*_TABLE.c).cte("made")
    event = _event(made.c.id, made.c.state, made.c.stage, made.c.progress)
    row = aliased(Analysis, made, adapt_on_names=True)
    told = select(row, func.pg_notify(CHANNEL, made.c.id)).add_cte(event)
    if ended:
        told = told.add_cte(webhooks.announcing(made.c).cte("announced"))
    return told


_LIKE = (
    select(Analysis.report_key, Analysis.verdict)
    .where(
        Analysis.project_id == _GIVEN["project_id"],
        Analysis.cache_key == _GIVEN["cache_key"],
        Analysis.state == "succeeded",
        Analysis.report_key.is_not(None),
    )
    .order_by(Analysis.id.desc())
    .limit(1)
    .with_for_update(read=True)
    .cte("earlier")
)
_CACHED = {
    "state": literal("succeeded"),
    "cached": true(),
    "progress": literal(1.0),
    "report_key": _LIKE.c.report_key,
    "verdict": _LIKE.c.verdict,
    "started_at": func.now(),
    "finished_at": func.now(),
}
_ADD = _recorded(
    _TABLE.insert().values(**_GIVEN, job_id=bindparam("job_id", type_=BigInteger)), ended=False
)
ADD_CACHED = _recorded(
    _TABLE.insert().from_select(
        [*_GIVEN, *_CACHED], select(*_GIVEN.values(), *_CACHED.values()).select_from(_LIKE)
    ),
    ended=True,
)
