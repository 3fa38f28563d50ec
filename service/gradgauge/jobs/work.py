"""What a worker process does: be a registered worker of each queue, and look after the dead."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import psycopg
import structlog
from procrastinate import App
from procrastinate.exceptions import ConnectorException
from procrastinate.worker import Worker

from gradgauge.jobs.connection import PatientJobManager, connector
from gradgauge.jobs.handle import Handler
from gradgauge.jobs.outcome import Runner
from gradgauge.jobs.queue import ANALYSE, INSPECT, Queue
from gradgauge.jobs.reaper import Reaper
from gradgauge.jobs.retention import Janitor
from gradgauge.jobs.webhooks import Dispatcher
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database

log = structlog.get_logger()

Body = Callable[..., Coroutine[Any, Any, None]]


class Work:
    """The jobs of one worker process, run by `runner` until `stop`."""

    def __init__(
        self, database: Database, blobs: BlobStore, settings: Settings, runner: Runner
    ) -> None:
        queue = Queue()
        self._conninfo = database.conninfo
        self._settings = settings
        self._reaper = Reaper(database, queue, settings, blobs)
        self._dispatcher = Dispatcher(database, settings)
        self._janitor = Janitor(database, blobs, settings)
        self._handler = Handler(database, blobs, settings, runner, queue)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Take no more jobs, give running ones `shutdown_s`, then put them back."""
        self._stopping.set()

    async def run(self) -> None:
        """Work until `stop`; outages of the database are sat out."""
        slots = self._settings.inspection_slots, self._settings.analysis_slots
        async with asyncio.TaskGroup() as group:
            beside = [
                group.create_task(self._reaper.run(), name="reaper"),
                group.create_task(self._janitor.run(), name="janitor"),
            ]
            if self._settings.webhooks != "off":
                beside.append(group.create_task(self._dispatcher.run(), name="webhooks"))
            serving = (
                group.create_task(self._serve(INSPECT, self._handler.inspect, slots[0])),
                group.create_task(self._serve(ANALYSE, self._handler.analyse, slots[1])),
            )
            await asyncio.wait(serving)
            for each in beside:
                each.cancel()

    async def _serve(self, task: str, body: Body, slots: int) -> None:
        while not self._stopping.is_set():
            try:
                await self._serve_once(task, body, slots)
            except (ConnectorException, psycopg.OperationalError) as error:
                log.warning("worker_interrupted", queue=task, reason=str(error.__cause__ or error))
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), self._settings.poll_s)

    async def _serve_once(self, task: str, body: Body, slots: int) -> None:
        """Be one registered worker of one queue, until told to stop or found to be struck out."""
        pool = connector(self._conninfo)
        app = App(connector=pool)
        app.job_manager = manager = PatientJobManager(pool, running=self._settings.quota_running)
        app.task(name=task, queue=task, pass_context=True)(body)
        async with app.open_async():
            worker = Worker(
                app,
                queues=[task],
                name=task,
                concurrency=slots,
                install_signal_handlers=False,
                delete_jobs="always",
                fetch_job_polling_interval=self._settings.poll_s,
                abort_job_polling_interval=self._settings.poll_s,
                update_heartbeat_interval=self._settings.heartbeat_s,
                stalled_worker_timeout=self._settings.stall_s,
                shutdown_graceful_timeout=self._settings.shutdown_s,
            )
            await self._until_over(worker, manager)

    async def _until_over(self, worker: Worker, manager: PatientJobManager) -> None:
        running = asyncio.create_task(worker.run(), name="worker")  # type: ignore[no-untyped-call]
        told = asyncio.create_task(self._stopping.wait())
        lost = asyncio.create_task(manager.lost.wait())
        try:
            await asyncio.wait({running, told, lost}, return_when=asyncio.FIRST_COMPLETED)
            if manager.lost.is_set():
                # Others have taken our jobs: what still runs here runs for nothing.
                log.warning("worker_was_given_up", worker=worker.worker_id)
                worker.shutdown_graceful_timeout = 0
            worker.stop()  # type: ignore[no-untyped-call]
            await running
        finally:
            told.cancel()
            lost.cancel()
            if not running.done():
                running.cancel()
                await asyncio.wait({running})
