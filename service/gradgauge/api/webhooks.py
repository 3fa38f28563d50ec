"""Webhooks: addresses that are told of every analysis that ends."""

import base64
import secrets
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Cursor, Here, Id, Limit, Project
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.paging import paged
from gradgauge.errors import Conflict
from gradgauge.jobs import post
from gradgauge.jobs.addresses import target
from gradgauge.schema.strict import Strict
from gradgauge.schema.wire import Block, Count, Text
from gradgauge.store.repository import webhooks as rows

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"], route_class=StrictRoute)


class WebhookRequest(Strict):
    """Where to."""

    url: Annotated[str, Field(min_length=1, max_length=2000)]


class Webhook(Block):
    """An address that is told of every analysis of the project that ends."""

    id: Text
    url: Text
    created_at: datetime


class NewWebhook(Webhook):
    """A webhook and the secret that signs its messages, which is told this once."""

    secret: Text


class WebhookPage(Block):
    """A page of webhooks, newest first; `next_cursor` is null on the last."""

    items: list[Webhook]
    next_cursor: Text | None


class Delivery(Block):
    """A message and what came of it; `answer` is the last attempt's."""

    id: Count
    analysis_id: Text
    outcome: Text
    verdict: Text | None
    state: Literal["pending", "delivered", "failed"]
    attempts: Count
    answer: Text | None
    created_at: datetime
    next_at: datetime
    delivered_at: datetime | None


class DeliveryPage(Block):
    """A page of deliveries, newest first; `next_cursor` is null on the last."""

    items: list[Delivery]
    next_cursor: Count | None


@router.post(
    "",
    status_code=201,
    responses=refusals(
        "invalid_json",
        "invalid_url",
        "too_many_webhooks",
        "unsupported_media_type",
        "webhooks_off",
    ),
)
async def create_webhook(
    asked: WebhookRequest, response: Response, here: Here, project: Project
) -> NewWebhook:
    """Have an address told of every analysis that ends, signed as Standard Webhooks says."""
    if here.settings.webhooks == "off":
        raise Conflict(
            "webhooks_off",
            "this service sends no webhooks",
            hint="whoever runs it may set GRADGAUGE_WEBHOOKS=public",
        )
    to = target(asked.url)
    if here.settings.webhooks == "public":
        post.refuse_private(to)
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    async with here.database.session() as session:
        row = await rows.add(session, project, url=asked.url, secret=secret)
    response.headers["Location"] = f"/v1/webhooks/{row.id}"
    return NewWebhook.model_validate(row, from_attributes=True)


@router.get("")
async def list_webhooks(
    here: Here, project: Project, limit: Limit = 50, cursor: Cursor = None
) -> WebhookPage:
    """List webhooks, newest first."""
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, before=cursor)
    return paged(WebhookPage, found, limit, wire)


@router.get("/{webhook_id}", responses=refusals("webhook_not_found"))
async def get_webhook(webhook_id: Id, here: Here, project: Project) -> Webhook:
    """Read a webhook, without its secret."""
    async with here.database.autocommit() as session:
        return wire(await rows.get(session, project, webhook_id))


@router.get("/{webhook_id}/deliveries", responses=refusals("webhook_not_found"))
async def list_deliveries(
    webhook_id: Id,
    here: Here,
    project: Project,
    limit: Limit = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> DeliveryPage:
    """List what a webhook was told, newest first, and what came of it."""
    async with here.database.autocommit() as session:
        await rows.get(session, project, webhook_id)
        found = await rows.deliveries(session, webhook_id, limit=limit + 1, before=cursor)
    return paged(DeliveryPage, found, limit, _delivery)


@router.delete("/{webhook_id}", status_code=204, responses=refusals("webhook_not_found"))
async def delete_webhook(webhook_id: Id, here: Here, project: Project) -> None:
    """Delete a webhook, with what it has not been told yet."""
    async with here.database.session() as session:
        await rows.delete(session, project, webhook_id)


def _delivery(row: object) -> Delivery:
    return Delivery.model_validate(row, from_attributes=True)


def wire(row: rows.Row) -> Webhook:
    """The row as clients see it."""
    return Webhook.model_validate(row, from_attributes=True)
