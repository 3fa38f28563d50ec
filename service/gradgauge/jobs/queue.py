"""What the API asks of the queue: inspect, analyse, cancel; each in its caller's transaction."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from procrastinate import PsycopgConnector
from procrastinate.exceptions import ConnectorException
from procrastinate.manager import JobManager
from procrastinate.tasks import configure_task
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge.errors import ModelRejected
from gradgauge.jobs import quotas
from gradgauge.store.database import Direct, psycopg_connection, unreachable
from gradgauge.store.repository import analyses, attempts, direct, models
from gradgauge.store.repository.analyses import NewAnalysis
from gradgauge.store.repository.usage import Quotas
from gradgauge.store.tables import FINAL_STATES, Analysis, Model

INSPECT = "inspect"
ANALYSE = "analyse"

# Each task has a queue of its own, so that an inspection never waits behind an analysis.
TASKS = {Model: INSPECT, Analysis: ANALYSE}

# How many jobs of its project an analysis stands back behind, for being long.
LONG = {"quick": 0, "standard": 2, "deep": 4}


@dataclass(frozen=True)
class Idempotency:
    """The client's key and the hash of the body it came with."""

    key: str
    body_sha256: str


@dataclass(frozen=True)
class Submitted:
    """The analysis that answers the request, and whether the request made it."""

    analysis: Analysis
    created: bool


class Queue:
    """Puts jobs into PostgreSQL on the caller's connection; needs none of its own.

    `usual` are the quotas of a project that has none of its own.
    """

    def __init__(self, usual: Quotas = quotas.NONE) -> None:
        self.usual = usual
        self._manager = JobManager(PsycopgConnector())

    async def submit_inspection(self, session: AsyncSession, model: Model) -> None:
        """Have a new model inspected."""
        model.job_id = await self.defer(session, model)
        await session.flush()

    async def submit_analysis(
        self,
        session: AsyncSession,
        new: NewAnalysis,
        *,
        idempotency: Idempotency | None = None,
        fresh: bool = False,
    ) -> Submitted:
        """Queue an analysis, or answer it from an earlier one unless it has to be `fresh`.

        An analysis of a model that is still being inspected gets its job when that has ended.

        Raises:
            NotFound: the project holds no such model.
            ModelRejected: the model's inspection refused it.
            KeyInFlight: the key's first request has not been committed yet.
            KeyReused: the key's first request had another body.
            TooManyWaiting, QuotaExceeded: the project may have no other.
        """
        if idempotency is None:
            return Submitted(await self._make(session, new, fresh=fresh), created=True)
        known = await self.recall(session, new.project_id, idempotency)
        if known:
            return known
        made = await self._make(session, new, fresh=fresh)
        key, body = idempotency.key, idempotency.body_sha256
        await analyses.remember(session, new.project_id, key, body, made.id)
        return Submitted(made, created=True)

    async def submit_at_once(
        self,
        connection: Direct,
        new: NewAnalysis,
        *,
        idempotency: Idempotency | None = None,
        fresh: bool = False,
    ) -> Submitted | None:
        """Queue an analysis as `submit_analysis` does, in one round trip to the database.

        None where there is more to it: a quota, an earlier answer, a model that is not ready.
        """
        key = None if idempotency is None else (idempotency.key, idempotency.body_sha256)
        behind = _length(new.options)
        made = await direct.enqueue(
            connection, new, behind=behind, usual=self.usual, fresh=fresh, key=key
        )
        return Submitted(made, created=True) if made else None

    async def submit_application(self, session: AsyncSession, new: NewAnalysis) -> Submitted:
        """Queue the application of a recommendation, or find the earlier one of the same.

        Raises:
            NotFound: the model is gone.
            TooManyWaiting, QuotaExceeded: the project may have no other.
        """
        if new.model_id is not None:
            await models.get(session, new.project_id, new.model_id, lock=True)
        earlier = await analyses.applied(session, new.project_id, new.cache_key)
        if earlier:
            return Submitted(earlier, created=False)
        return Submitted(await self._queued(session, new, ready=True), created=True)

    async def recall(
        self, session: AsyncSession, project_id: str, idempotency: Idempotency
    ) -> Submitted | None:
        """Return what the key's first request made; None where this is the first.

        Raises:
            KeyInFlight: the key's first request has not been committed yet.
            KeyReused: the key's first request had another body.
        """
        key, body = idempotency.key, idempotency.body_sha256
        known = await analyses.recall(session, project_id, key, body)
        return Submitted(known, created=False) if known else None

    async def cancel(self, session: AsyncSession, project_id: str, analysis_id: str) -> Analysis:
        """Cancel a queued or running analysis; one that has ended stays as it is.

        The row is final with this transaction, whatever a worker still does; the worker is told
        and stops its child.

        Raises:
            NotFound: the project holds no such analysis.
        """
        analysis = await analyses.get(session, project_id, analysis_id, lock=True)
        if analysis.state in FINAL_STATES:
            return analysis
        await attempts.end(session, analysis, {"state": "cancelled"})
        if analysis.job_id is not None:
            with _queue_errors():
                await self._manager.cancel_job_by_id_async(
                    analysis.job_id,
                    abort=True,
                    delete_job=True,
                    connection=await psycopg_connection(session),
                )
        return analysis

    async def defer(self, session: AsyncSession, row: Analysis | Model) -> int:
        """Write a job for the row and return its id; the caller binds it to the row."""
        priority = 0
        if isinstance(row, Analysis):
            priority = _priority(await analyses.waiting(session, row.project_id), row.options)
        return await self._defer(session, TASKS[type(row)], row.id, priority)

    async def _defer(self, session: AsyncSession, task: str, row_id: str, priority: int) -> int:
        job = configure_task(
            name=task,
            job_manager=self._manager,
            queue=task,
            priority=priority,
            connection=await psycopg_connection(session),
        )
        with _queue_errors():
            return await job.defer_async(row_id=row_id)

    async def _make(self, session: AsyncSession, new: NewAnalysis, *, fresh: bool) -> Analysis:
        ready = True
        if new.model_id is not None:
            model = await models.get(session, new.project_id, new.model_id, lock=True)
            if model.problem is not None:
                raise ModelRejected(model.id, model.problem)
            ready = model.state == "ready"
        earlier = None if fresh else await analyses.add_cached(session, new)
        if earlier:
            return earlier
        return await self._queued(session, new, ready=ready)

    async def _queued(self, session: AsyncSession, new: NewAnalysis, *, ready: bool) -> Analysis:
        waiting = await quotas.enter(session, new.project_id, self.usual)
        job_id = None
        if ready:
            priority = _priority(waiting + 1, new.options)
            job_id = await self._defer(session, ANALYSE, new.id, priority)
        return await analyses.add(session, new, job_id=job_id)


@contextmanager
def _queue_errors() -> Iterator[None]:
    """The queue's word for a database that is away or full, as every other query's.

    Raises:
        Unavailable: the database cannot be reached, now or half way.
        DatabaseFull: its disk is full.
    """
    try:
        yield
    except ConnectorException as error:
        if isinstance(error.__cause__, (psycopg.OperationalError, psycopg.InterfaceError)):
            raise unreachable(error) from error
        raise


def _priority(waiting: int, options: Mapping[str, Any]) -> int:
    """Who has many waiting lets others go first.

    Quick ones pass a few that are long, so that they do not wait for those, nor those for ever.
    """
    return -waiting - _length(options)


def _length(options: Mapping[str, Any]) -> int:
    return LONG[options.get("profile", "standard")]
