"""What the routes are given: the process's services and the caller's project."""

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, TypedDict

from fastapi import Depends, Path, Query, Request

from gradgauge.api.gate import Principal
from gradgauge.jobs.fetch import Fetcher
from gradgauge.jobs.progress import Hub
from gradgauge.jobs.queue import Queue
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database


@dataclass(frozen=True)
class Services:
    """What the process has opened, for as long as it serves."""

    settings: Settings
    database: Database
    blobs: BlobStore
    queue: Queue
    hub: Hub
    fetcher: Fetcher
    kept: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    """Reports that come with a request are in memory as objects one request at a time."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once the process is told to stop: whoever streams comes to an end."""


class State(TypedDict):
    """What the lifespan hands to every request."""

    services: Services


# Coroutines all: what is none would be sent to a thread and back, twice a request.
async def services(request: Request) -> Services:
    """The process's services."""
    found: Services = request.state.services
    return found


async def principal(request: Request) -> Principal:
    """Who asks, as the gate found out; a route the gate let pass without a key has no such."""
    found: Principal = request.state.principal
    return found


async def project(who: Annotated[Principal, Depends(principal)]) -> str:
    """The caller's project: without keys there is one."""
    return who.project_id


Here = Annotated[Services, Depends(services)]
Project = Annotated[str, Depends(project)]

# Printable ASCII: what PostgreSQL cannot hold (NUL) is no id.
REFERENCE = r"^[\x21-\x7e]{1,80}$"

Id = Annotated[str, Path(pattern=REFERENCE)]
Of = Annotated[str | None, Query(pattern=REFERENCE)]
# Of secrets told once no copy stays on the way.
UNSTORED = {"Cache-Control": "no-store"}
Limit = Annotated[int, Query(ge=1, le=200, description="Items of a page.")]
Cursor = Annotated[
    str | None,
    Query(
        pattern=r"^[a-z]{3}_[0-9a-z]{26}$",
        description="The last page's `next_cursor`; its items are older.",
    ),
]
