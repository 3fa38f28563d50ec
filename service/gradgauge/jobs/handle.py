"""One job from its start to its end: begin an attempt, have it run, write what became of it."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import structlog
from procrastinate import JobContext
from procrastinate.job_context import AbortReason
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge import metrics, traces
from gradgauge.errors import QuotaExceeded, StorageFull, Unavailable
from gradgauge.jobs import faults, uploads
from gradgauge.jobs.connection import through_outage
from gradgauge.jobs.outcome import (
    AnalysisJob,
    Data,
    Died,
    Failed,
    InspectionJob,
    Made,
    Outcome,
    Runner,
    Spec,
    Succeeded,
    Upload,
)
from gradgauge.jobs.progress import LeaseLost, Teller
from gradgauge.jobs.queue import ANALYSE, INSPECT, Queue
from gradgauge.jobs.reaper import fail_waiting, give_up, put_back
from gradgauge.schema.resources import ModelFacts
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.database import Database
from gradgauge.store.ids import new_token
from gradgauge.store.repository import attempts, data_files
from gradgauge.store.tables import Analysis, Architecture, Model

log = structlog.get_logger()

T = TypeVar("T")
Ending = TypeVar("Ending", bound=Outcome | Made)

_CODE = 40


class Handler:
    """The bodies of the two tasks, over one runner."""

    def __init__(
        self,
        database: Database,
        blobs: BlobStore,
        settings: Settings,
        runner: Runner,
        queue: Queue,
    ) -> None:
        self._database = database
        self._blobs = blobs
        self._settings = settings
        self._runner = runner
        self._queue = queue

    async def analyse(self, context: JobContext, *, row_id: str) -> None:
        """Run the analysis until it ends, is put back, or belongs to somebody else."""
        job_id = _id_of(context)
        row = await self._write(lambda s: attempts.start_analysis(s, row_id, job_id))
        if row is None or row.token is None:
            return
        with (
            traces.span(
                ANALYSE,
                kind="consumer",
                parent=row.traceparent,
                analysis=row.id,
                project=row.project_id,
                attempt=row.attempts,
            ),
            structlog.contextvars.bound_contextvars(
                analysis=row.id, project=row.project_id, request_id=row.request_id, **traces.ids()
            ),
        ):
            await self._analyse(context, row, row.token)

    async def _analyse(self, context: JobContext, row: Analysis, token: str | None) -> None:
        log.info("analysis_started", attempt=row.attempts)
        if row.attempts == 1 and row.started_at is not None:
            metrics.waited(ANALYSE, (row.started_at - row.created_at).total_seconds())
            traces.told("wait", row.created_at.timestamp(), row.started_at.timestamp())
        try:
            while token is not None:
                token = await self._attempt_analysis(row, token)
        except asyncio.CancelledError:
            await self._interrupted(context, Analysis, row.id, token)
            raise

    async def _attempt_analysis(self, row: Analysis, token: str) -> str | None:
        """Run the analysis once and return the next attempt's token if there is to be one."""
        job = await self._job(row, token)
        if isinstance(job, str):
            gone = faults.fault(code="source_deleted", message=f"{job} has been deleted")
            return await self._finished(self._end_analysis(row, token, Failed(gone)))
        interval_s = self._settings.progress_interval_s
        tell = Teller(self._database, row.id, token, interval_s=interval_s)
        run = self._runner.analyse if job.recommendation is None else self._runner.patch
        try:
            with _counted(ANALYSE) as seen:
                outcome = seen.note(await run(job, tell))
        except LeaseLost:
            log.warning("attempt_replaced")
            return None
        if isinstance(outcome, Died):
            return await self._finished(self._died(Analysis, row.id, token, outcome))
        if isinstance(outcome, Made):
            return await self._finished(self._end_application(row, token, outcome))
        return await self._finished(self._end_analysis(row, token, outcome))

    async def _end_analysis(self, row: Analysis, token: str, outcome: Succeeded | Failed) -> None:
        values: dict[str, Any]
        key = f"{row.project_id}/analyses/{row.id}/{token}.json"
        if isinstance(outcome, Succeeded):
            outcome = await self._stored(key, outcome)
        if isinstance(outcome, Succeeded):
            values = {"state": "succeeded", "progress": 1.0, "report_key": key}
            values |= {"verdict": outcome.verdict, "report_bytes": len(outcome.result)}
        else:
            values = {"state": "failed", "error": outcome.fault}
        mine = await self._write(lambda s: attempts.end_analysis(s, row.id, token, values))
        if not mine:
            log.warning("result_refused")
            await self._blobs.delete(key)
            return
        code = (values.get("error") or {}).get("code")
        log.info("analysis_ended", state=values["state"], code=code)
        if row.attempts > 1 and values["state"] == "succeeded":
            with suppress(Unavailable):
                await self._blobs.keep_only(key)

    async def _end_application(self, row: Analysis, token: str, made: Made) -> None:
        """Keep a model that was made and end its row."""
        held = await self._write(lambda s: attempts.held(s, Analysis, row.id, token))
        if held is None or row.application is None:
            log.warning("result_refused")
            made.received.discard()
            return
        told = row.application
        try:
            model, _ = await uploads.accept(
                self._database,
                self._blobs,
                self._queue,
                row.project_id,
                name=f"{_stem(row.name)}-{told['recommendation_id']}.onnx",
                received=made.received,
                request_id=row.request_id,
                patient=True,
            )
        except (QuotaExceeded, StorageFull) as full:
            await self._end_analysis(row, token, Failed(full.as_dict()))
            return
        told = told | {
            "model_id": model.id,
            "changes": made.changes,
            "function_preserving": made.function_preserving,
            "spec": made.spec,
        }
        values = {"state": "succeeded", "progress": 1.0, "application": told}
        # A model whose row has ended meanwhile stays: its content is all that names it.
        if await self._write(lambda s: attempts.end_analysis(s, row.id, token, values)):
            log.info("recommendation_applied", model=model.id)

    async def _stored(self, key: str, outcome: Succeeded) -> Succeeded | Failed:
        """Store a report, through outages; a full store fails the analysis."""
        try:
            await through_outage(lambda: self._put(key, outcome.result), _Away)
        except StorageFull as full:
            return Failed(full.as_dict())
        return outcome

    async def _put(self, key: str, content: bytes) -> None:
        try:
            await self._blobs.put(key, content)
        except StorageFull:
            raise
        except Unavailable as away:
            raise _Away from away

    async def _job(self, row: Analysis, token: str) -> AnalysisJob | str:
        """The attempt's job; what is missing where its source or its data are gone."""
        source = await self._write(lambda s: attempts.source_of(s, row))
        if source is None:
            return "what was to be analysed"
        data = None
        if row.options.get("data") is not None:
            data = await self._write(lambda s: data_files.of(s, row))
            if data is None:
                return "the data it was to be fed with"
        return AnalysisJob(
            analysis_id=row.id,
            project_id=row.project_id,
            token=token,
            source=_source(source),
            options=row.options,
            recommendation=row.application and _wanted(row.application),
            data=None if data is None else Data(data.blob_key),
        )

    async def inspect(self, context: JobContext, *, row_id: str) -> None:
        """Run the inspection until it ends, is put back, or belongs to somebody else."""
        job_id = _id_of(context)
        row = await self._write(lambda s: attempts.start_inspection(s, row_id, job_id))
        if row is None or row.token is None:
            return
        with (
            traces.span(
                INSPECT,
                kind="consumer",
                parent=row.traceparent,
                model=row.id,
                project=row.project_id,
            ),
            structlog.contextvars.bound_contextvars(
                model=row.id, project=row.project_id, request_id=row.request_id, **traces.ids()
            ),
        ):
            await self._inspect(context, row, row.token)

    async def _inspect(self, context: JobContext, row: Model, token: str | None) -> None:
        row_id = row.id
        try:
            while token is not None:
                with _counted(INSPECT) as seen:
                    job = InspectionJob(row.project_id, token, _upload(row))
                    outcome = seen.note(await self._runner.inspect(job))
                ending = (
                    self._died(Model, row_id, token, outcome)
                    if isinstance(outcome, Died)
                    else self._end_inspection(row_id, token, outcome)
                )
                token = await self._finished(ending)
        except asyncio.CancelledError:
            await self._interrupted(context, Model, row_id, token)
            raise

    async def _end_inspection(self, model_id: str, token: str, outcome: Succeeded | Failed) -> None:
        values = _inspected(outcome)

        async def write(session: AsyncSession) -> None:
            if not await attempts.end_inspection(session, model_id, token, values):
                log.warning("result_refused")
            elif values["state"] == "rejected":
                await fail_waiting(session, model_id, values["problem"])
            else:
                for analysis in await attempts.waiting_for(session, model_id):
                    job_id = await self._queue.defer(session, analysis)
                    await attempts.bind(session, analysis, {"job_id": job_id})

        await self._write(write)
        log.info("inspection_ended", state=values["state"])

    async def _died(
        self, kind: type[Analysis | Model], row_id: str, token: str, outcome: Died
    ) -> str | None:
        """Count a dead child; return the token of the next attempt unless there were too many."""

        async def write(session: AsyncSession) -> str | None:
            row = await attempts.held(session, kind, row_id, token)
            if row is None:
                return None
            deaths = row.deaths + 1
            if deaths >= self._settings.max_deaths:
                await give_up(session, row, deaths, outcome.reason)
                return None
            values: dict[str, Any] = {"deaths": deaths, "token": new_token()}
            if isinstance(row, Analysis):
                values |= {"attempts": row.attempts + 1, "progress": 0.0}
            await attempts.bind(session, row, values)
            return row.token

        log.warning("child_died", row=row_id, reason=outcome.reason)
        return await self._write(write)

    async def _interrupted(
        self, context: JobContext, kind: type[Analysis | Model], row_id: str, token: str | None
    ) -> None:
        """Put the row back where we stop; leave it where a client has cancelled it."""
        if context.abort_reason() is not AbortReason.SHUTDOWN or token is None:
            return

        async def write(session: AsyncSession) -> None:
            row = await attempts.held(session, kind, row_id, token)
            if row is not None:
                await put_back(session, self._queue, row, self._settings, died=False)

        # Without a database the reaper of the next worker does it.
        with suppress(Unavailable):
            async with self._database.session() as session:
                await write(session)

    async def _write(self, action: Callable[[AsyncSession], Awaitable[T]]) -> T:
        """Do `action` in a transaction, however long the database is away."""

        async def once() -> T:
            async with self._database.session() as session:
                return await action(session)

        return await through_outage(once, Unavailable)

    @staticmethod
    async def _finished(ending: Coroutine[Any, Any, T]) -> T:
        """Let what writes an end get there, even where we are cancelled meanwhile."""
        task = asyncio.create_task(ending)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            raise


class _Counted:
    """One attempt as the metrics see it."""

    outcome = "given_up"
    code: str | None = None

    def note(self, outcome: Ending) -> Ending:
        """Remember how it ended, and give that on."""
        self.outcome = type(outcome).__name__.lower()
        self.code = outcome.fault.get("code") if isinstance(outcome, Failed) else None
        return outcome


@contextmanager
def _counted(task: str) -> Iterator[_Counted]:
    """Count the attempt; without a note it was cancelled, replaced or put back."""
    began, seen = time.monotonic(), _Counted()
    try:
        yield seen
    finally:
        metrics.ended(task, seen.outcome, seen.code, time.monotonic() - began)
        traces.note(
            outcome=seen.outcome,
            code=seen.code and seen.code[:_CODE],
            failed=None if seen.outcome == "succeeded" else seen.outcome,
        )


class _Away(Exception):
    """The store is away for a while."""


def _id_of(context: JobContext) -> int:
    if context.job.id is None:
        raise AssertionError("unreachable")
    return context.job.id


def _wanted(told: dict[str, Any]) -> dict[str, Any]:
    wanted = {name: told[name] for name in ("action", "title", "finding_ids")}
    return {"id": told["recommendation_id"], **wanted}


def _stem(name: str) -> str:
    return name.removesuffix(".onnx").removesuffix(".zip") or name


def _source(row: Model | Architecture) -> Upload | Spec:
    return _upload(row) if isinstance(row, Model) else Spec(row.name, row.spec)


def _upload(row: Model) -> Upload:
    return Upload(row.id, row.name, row.blob_key, row.sha256, row.size_bytes)


def _inspected(outcome: Succeeded | Failed) -> dict[str, Any]:
    """Return what to write of an inspection; what a child tells is checked before it is kept."""
    if isinstance(outcome, Failed):
        return {"state": "rejected", "problem": outcome.fault}
    try:
        facts = ModelFacts.told(json.loads(outcome.result))
    except (ValueError, TypeError, AttributeError, LookupError):
        garbled = faults.fault(
            code="garbled_facts",
            message="the inspection told facts that are none",
            hint="report this, with the model if it is not secret",
        )
        return {"state": "rejected", "problem": garbled}
    return {"state": "ready", "facts": facts.model_dump(mode="json")}
