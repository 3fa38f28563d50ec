"""Whether the process lives, and whether the service can do its work."""

from collections.abc import Awaitable
from typing import Literal

from fastapi import APIRouter, Response

from gradgauge.api.deps import Here, Services
from gradgauge.errors import GradgaugeError
from gradgauge.schema.wire import Block, Count, Text
from gradgauge.store.repository import attempts, workers

router = APIRouter(tags=["health"])


class Liveness(Block):
    """The process answers."""

    status: Literal["ok"]


class Sandbox(Block):
    """How a worker confines the children that open models."""

    worker: Text
    layers: dict[Text, Text]
    """State of each layer: "on..." or "missing: why"."""


class Readiness(Block):
    """What the service needs, part by part: "ok", or what is wrong."""

    status: Literal["ready", "not_ready"]
    database: Text
    store: Text
    worker: Text
    workers: Count
    """Worker processes that have told of themselves lately."""
    sandbox: Literal["full", "partial", "unknown"]
    """`partial` where any worker lacks a layer; `unknown` without a worker."""
    sandboxes: list[Sandbox]


@router.get("/healthz")
async def live() -> Liveness:
    """Say that the process lives."""
    return Liveness(status="ok")


@router.get("/readyz", responses={503: {"model": Readiness}})
async def ready(response: Response, here: Here) -> Readiness:
    """Tell whether database, store and a worker are there, and how its children are confined."""
    database = await _said(here.database.ping())
    store = await _said(here.blobs.ping())
    sandboxes = await _sandboxes(here) if database == "ok" else []
    living = await _living(here) if database == "ok" else 0
    worker = "ok" if living else "no worker has given a sign of life lately"
    fine = database == store == worker == "ok"
    if not fine:
        response.status_code = 503
    return Readiness(
        status="ready" if fine else "not_ready",
        database=database,
        store=store,
        worker=worker,
        workers=len(sandboxes),
        sandbox=_sum(sandboxes),
        sandboxes=sandboxes,
    )


async def _said(check: Awaitable[None]) -> str:
    try:
        await check
    except GradgaugeError as error:
        return error.message
    return "ok"


async def _living(here: Services) -> int:
    async with here.database.autocommit() as session:
        return await attempts.living_workers(session, here.settings.stall_s)


async def _sandboxes(here: Services) -> list[Sandbox]:
    async with here.database.autocommit() as session:
        present = await workers.present(session, here.settings.stall_s)
    return [Sandbox(worker=row.id, layers=row.sandbox) for row in present]


def _sum(sandboxes: list[Sandbox]) -> Literal["full", "partial", "unknown"]:
    if not sandboxes:
        return "unknown"
    states = [state for each in sandboxes for state in each.layers.values()]
    return "full" if all(state.startswith("on") for state in states) else "partial"
