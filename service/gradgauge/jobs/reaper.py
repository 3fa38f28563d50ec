"""Gives the jobs of the dead to the living, and up on those that kill."""

import asyncio
import time
from contextlib import suppress
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import Unavailable
from gradgauge.jobs import faults, parts
from gradgauge.jobs.queue import Queue
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database
from gradgauge.store.repository import attempts, webhooks
from gradgauge.store.tables import Analysis, Model

log = structlog.get_logger()

_HOUR_S = 3600.0
_SILENT = "its worker has fallen silent"


class Reaper:
    """Looks after jobs whose worker is gone; each worker process has one, and any one is enough."""

    def __init__(
        self, database: Database, queue: Queue, settings: Settings, blobs: BlobStore | None = None
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._queue = queue
        self._settings = settings

    async def run(self) -> None:
        """Look every `reap_s`, for ever.

        After an outage of the database, or of this process, nobody's heartbeat is young: all get
        a stall time to report before anybody's job is taken.
        """
        waits = self._settings
        usual_s = waits.reap_s + (waits.stall_s - waits.heartbeat_s) / 2
        looked = time.monotonic()
        while True:
            await asyncio.sleep(waits.reap_s)
            with suppress(Unavailable):
                if time.monotonic() - looked > usual_s:
                    await self._database.ping()
                    await asyncio.sleep(waits.stall_s)
                await self.reap()
                looked = time.monotonic()

    async def reap(self) -> list[int]:
        """Take over every abandoned job, and return those that were."""
        stall_s = self._settings.stall_s
        async with self._database.session() as session:
            suspects = await attempts.abandoned(session, stall_s)
        taken = [job_id for job_id in suspects if await self._take_over(job_id)]
        async with self._database.session() as session:
            await attempts.dismiss_workers(session, stall_s)
            await attempts.forget(
                session,
                keys_older_s=self._settings.idempotency_hours * _HOUR_S,
                events_older_s=self._settings.event_days * 24 * _HOUR_S,
            )
            await webhooks.forget(session, older_s=self._settings.event_days * 24 * _HOUR_S)
        if self._blobs is not None:
            older_s = self._settings.upload_hours * _HOUR_S
            await parts.sweep(self._database, self._blobs, older_s=older_s)
        return taken

    async def _take_over(self, job_id: int) -> bool:
        """Close the job and, where its row is not at its end, write it another one."""
        async with self._database.session() as session:
            row = await attempts.holder(session, job_id)
            if not await attempts.abandoned(session, self._settings.stall_s, job_id=job_id):
                return False  # another reaper was faster, or the worker has come back to life
            await attempts.close_job(session, job_id)
            if row is None or not _open(row):
                return True
            log.warning("job_taken_over", job=job_id, row=row.id, deaths=row.deaths)
            # Nobody had begun: nobody died of it.
            await put_back(session, self._queue, row, self._settings, died=row.token is not None)
        return True


async def put_back(
    session: AsyncSession,
    queue: Queue,
    row: Analysis | Model,
    settings: Settings,
    *,
    died: bool,
) -> None:
    """Take the row from its attempt and queue it again, or give up after too many deaths."""
    deaths = row.deaths + died
    if died and deaths >= settings.max_deaths:
        await give_up(session, row, deaths, _SILENT)
        return
    values: dict[str, Any] = {
        "token": None,
        "deaths": deaths,
        "job_id": await queue.defer(session, row),
    }
    if isinstance(row, Analysis):
        values |= {"state": "queued", "stage": None, "progress": 0.0}
    await attempts.bind(session, row, values)


async def give_up(session: AsyncSession, row: Analysis | Model, deaths: int, reason: str) -> None:
    """End a row that has killed `deaths` times, and with a model what waits for it."""
    if isinstance(row, Analysis):
        fault = faults.died("analysis", deaths, reason)
        await attempts.end(session, row, {"state": "failed", "error": fault, "deaths": deaths})
        return
    fault = faults.died("inspection", deaths, reason)
    values = {"state": "rejected", "problem": fault, "deaths": deaths, "token": None}
    await attempts.bind(session, row, values)
    await fail_waiting(session, row.id, fault)


async def fail_waiting(session: AsyncSession, model_id: str, fault: faults.Fault) -> None:
    """Fail the analyses that waited for the inspection of a model that is rejected now."""
    for analysis in await attempts.waiting_for(session, model_id):
        await attempts.end(session, analysis, {"state": "failed", "error": fault})


def _open(row: Analysis | Model) -> bool:
    return row.state in {"queued", "running", "inspecting"}
