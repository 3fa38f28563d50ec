"""Procrastinate's job manager, made to sit out a database that is away for a while."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import structlog
from procrastinate import PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager, NotificationCallback
from psycopg_pool import AsyncNullConnectionPool
from typing_extensions import override

log = structlog.get_logger()

_PAUSE_S = 0.5
_CONNECT_LIMIT_S = 5

T = TypeVar("T")


def connector(conninfo: str) -> PsycopgConnector:
    """Return a connector that connects anew for each query, at most twice at once.

    A pool of kept connections backs off for ever longer during an outage, and would leave a
    worker without heartbeats long after the database is back.
    """
    return PsycopgConnector(
        conninfo=conninfo,
        pool_factory=AsyncNullConnectionPool,
        min_size=0,
        max_size=2,
        timeout=_CONNECT_LIMIT_S,
        kwargs={"connect_timeout": _CONNECT_LIMIT_S},
    )


class PatientJobManager(JobManager):
    """A job manager for one worker, whose side tasks an outage does not end.

    Procrastinate 3.10 stops looking after a worker's side tasks as soon as one returns, which the
    deferrer of periodic tasks does at once: a heartbeat that met an error would end in silence
    while the worker went on. Here heartbeats and listening outlive errors, and `lost` is set when
    the worker's own row has vanished: others took it for dead, and it must not go on.
    """

    def __init__(self, connector: PsycopgConnector) -> None:
        super().__init__(connector)
        self.lost = asyncio.Event()

    @override
    async def update_heartbeat(self, worker_id: int) -> None:
        with suppress(ConnectorException):
            found = await self.connector.execute_query_all_async(
                "UPDATE procrastinate_workers SET last_heartbeat = now()"
                " WHERE id = %(worker_id)s RETURNING id",
                worker_id=worker_id,
            )
            if not found:
                self.lost.set()

    @override
    async def fetch_job(self, queues: Iterable[str] | None, worker_id: int) -> Job | None:
        try:
            return await super().fetch_job(queues, worker_id)
        except ConnectorException as error:
            log.warning("fetch_failed", reason=str(error.__cause__ or error))
            return None

    @override
    async def finish_job(self, job: Job, status: Status, delete_job: bool) -> None:
        """Remove the job; one that is gone was taken over, which its row's token settles."""
        await through_outage(
            lambda: self.connector.execute_query_async(
                "DELETE FROM procrastinate_jobs WHERE id = %(id)s", id=job.id
            ),
            ConnectorException,
        )

    @override
    async def list_jobs_to_abort_async(self, queue: str | None = None) -> Iterable[int]:
        try:
            return await super().list_jobs_to_abort_async(queue)
        except ConnectorException:
            return []

    @override
    async def listen_for_jobs(
        self, *, on_notification: NotificationCallback, queues: Iterable[str] | None = None
    ) -> None:
        while True:
            with suppress(ConnectorException):
                await super().listen_for_jobs(on_notification=on_notification, queues=queues)
            await asyncio.sleep(_PAUSE_S)


async def through_outage(action: Callable[[], Awaitable[T]], *outages: type[Exception]) -> T:
    """Do `action` again and again until it meets none of `outages`."""
    while True:
        try:
            return await action()
        except outages as error:
            log.warning("waiting_for_database", reason=str(error.__cause__ or error))
            await asyncio.sleep(_PAUSE_S)
