"""Procrastinate's job manager, made to sit out a database that is away for a while."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import psycopg
import structlog
from procrastinate import PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager, NotificationCallback
from psycopg.rows import dict_row
from psycopg_pool import AsyncNullConnectionPool
from typing_extensions import override

log = structlog.get_logger()

_PAUSE_S = 0.5
_CONNECT_LIMIT_S = 5

# Any number, as long as all workers of a database ask for the same lock.
_FETCH_LOCK = 0x6772_6164_6665_7463

_FETCH = """
WITH busy AS MATERIALIZED (
    SELECT analysis.project_id AS id
      FROM procrastinate_jobs doing
      JOIN analyses analysis ON analysis.job_id = doing.id
      JOIN projects project ON project.id = analysis.project_id
     WHERE doing.status = 'doing'
     GROUP BY analysis.project_id, project.quota_running
    HAVING count(*) >= nullif(coalesce(project.quota_running, %(running)s), 0)
), candidate AS (
    SELECT job.id
      FROM procrastinate_jobs job
      LEFT JOIN analyses analysis ON analysis.job_id = job.id
     WHERE job.status = 'todo'
       AND job.queue_name = ANY(%(queues)s)
       AND (job.scheduled_at IS NULL OR job.scheduled_at <= now())
       AND (analysis.project_id IS NULL OR analysis.project_id NOT IN (SELECT id FROM busy))
     ORDER BY job.priority DESC, job.id
     LIMIT 1
       FOR UPDATE OF job SKIP LOCKED
)
UPDATE procrastinate_jobs job
   SET status = 'doing', worker_id = %(worker)s
  FROM candidate
 WHERE job.id = candidate.id
RETURNING job.id, job.status, job.task_name, job.priority, job.lock, job.queueing_lock, job.args,
          job.scheduled_at, job.queue_name, job.attempts, job.worker_id
"""

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

    Jobs of a project of which as many run as may are left in the queue: `running` is the number
    for projects without one of their own, 0 no limit.
    """

    def __init__(self, connector: PsycopgConnector, *, running: int = 0) -> None:
        super().__init__(connector)
        self._connector = connector
        self._running = running
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
        given = {"queues": list(queues or ()), "worker": worker_id, "running": self._running}
        try:
            async with self._connector.pool.connection() as connection, connection.transaction():
                # One at a time: two who count at once would both find room for the last one.
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_FETCH_LOCK])
                cursor = connection.cursor(row_factory=dict_row)
                row = await (await cursor.execute(_FETCH, given)).fetchone()
        except (ConnectorException, psycopg.Error) as error:
            log.warning("fetch_failed", reason=str(error.__cause__ or error))
            return None
        return Job.from_row(row) if row else None

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
