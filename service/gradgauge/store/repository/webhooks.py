"""Queries about webhooks and their deliveries."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import String, cast, func, insert, select, update
from sqlalchemy import delete as sql_delete
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Conflict, NotFound
from gradgauge.store.ids import new_id
from gradgauge.store.tables import Analysis, Delivery, Webhook

Row = Webhook
DeliveryRow = Delivery
MOST = 20


@dataclass(frozen=True)
class Due:
    """A message that is to be sent now."""

    delivery: Delivery
    url: str
    secret: str


async def add(session: AsyncSession, project_id: str, *, url: str, secret: str) -> Webhook:
    """Return a new webhook; raises Conflict where the project has as many as it may."""
    count = select(func.count()).where(Webhook.project_id == project_id)
    if (await session.execute(count)).scalar_one() >= MOST:
        raise Conflict(
            "too_many_webhooks",
            f"this project has {MOST} webhooks",
            limit=f"webhooks={MOST}",
            hint="delete those that are not used",
        )
    row = Webhook(id=new_id("whk"), project_id=project_id, url=url, secret=secret)
    session.add(row)
    await session.flush()
    await session.refresh(row)
    return row


async def get(session: AsyncSession, project_id: str, webhook_id: str) -> Webhook:
    """Return the webhook; raises NotFound where the project holds none of this id."""
    statement = select(Webhook).where(Webhook.project_id == project_id, Webhook.id == webhook_id)
    found = (await session.scalars(statement)).one_or_none()
    if found is None:
        raise NotFound("webhook_not_found", f"there is no webhook {webhook_id[:64]}")
    return found


async def page(
    session: AsyncSession, project_id: str, *, limit: int, before: str | None = None
) -> list[Webhook]:
    """Return up to `limit` webhooks, newest first, older than the id `before`."""
    statement = select(Webhook).where(Webhook.project_id == project_id)
    if before is not None:
        statement = statement.where(Webhook.id < before)
    return list(await session.scalars(statement.order_by(Webhook.id.desc()).limit(limit)))


async def deliveries(
    session: AsyncSession, webhook_id: str, *, limit: int, before: int | None = None
) -> list[Delivery]:
    """Return up to `limit` of a webhook's deliveries, newest first, older than the id `before`."""
    statement = select(Delivery).where(Delivery.webhook_id == webhook_id)
    if before is not None:
        statement = statement.where(Delivery.id < before)
    return list(await session.scalars(statement.order_by(Delivery.id.desc()).limit(limit)))


async def delete(session: AsyncSession, project_id: str, webhook_id: str) -> None:
    """Delete the webhook and what it has not been told yet; raises NotFound."""
    await get(session, project_id, webhook_id)
    await session.execute(sql_delete(Webhook).where(Webhook.id == webhook_id))


async def announce(session: AsyncSession, analysis: Analysis) -> None:
    """Have every webhook of its project told of an analysis that has ended."""
    await session.execute(announcing(analysis))


def announcing(analysis: Any) -> Any:
    """The statement of `announce`, of an analysis or of the columns of one."""
    told = select(
        Webhook.id,
        *(cast(getattr(analysis, name), String) for name in ("id", "state", "verdict")),
    ).where(Webhook.project_id == analysis.project_id)
    columns = ["webhook_id", "analysis_id", "outcome", "verdict"]
    return insert(Delivery).from_select(columns, told)


async def claim(session: AsyncSession, *, most: int, lease_s: float) -> list[Due]:
    """Return messages that are due, each to one caller at a time, and count the attempt.

    A caller that dies lets go of its messages after `lease_s`.
    """
    due = (
        select(Delivery)
        .where(Delivery.state == "pending", Delivery.next_at <= func.now())
        .order_by(Delivery.next_at)
        .limit(most)
        .with_for_update(skip_locked=True)
    )
    rows = list(await session.scalars(due))
    for row in rows:
        await _write(session, row.id, {"attempts": row.attempts + 1, "next_at": _in(lease_s)})
        await session.refresh(row)
    hooks = select(Webhook).where(Webhook.id.in_([row.webhook_id for row in rows]))
    known = {hook.id: hook for hook in await session.scalars(hooks)}
    return [Due(row, known[row.webhook_id].url, known[row.webhook_id].secret) for row in rows]


async def delivered(session: AsyncSession, delivery: Delivery, answer: str) -> None:
    """Write down that a message has arrived."""
    values = {"state": "delivered", "answer": answer, "delivered_at": func.now()}
    await _write(session, delivery.id, values)


async def failed(
    session: AsyncSession, delivery: Delivery, answer: str, *, again_s: float | None
) -> None:
    """Write down that a message did not arrive; it is sent again in `again_s`, or (None) not."""
    values: dict[str, object] = {"state": "failed", "answer": answer}
    if again_s is not None:
        values = {"answer": answer, "next_at": _in(again_s)}
    await _write(session, delivery.id, values)


async def forget(session: AsyncSession, *, older_s: float) -> None:
    """Delete messages that ended so long ago."""
    old = Delivery.created_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, older_s)
    await session.execute(sql_delete(Delivery).where(old, Delivery.state != "pending"))


async def _write(session: AsyncSession, delivery_id: int, values: Mapping[str, object]) -> None:
    await session.execute(update(Delivery).where(Delivery.id == delivery_id).values(**values))


def _in(seconds: float) -> object:
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
