"""Runs the queue's jobs in confined children: files laid out, limits set, answers checked."""

import asyncio
import fcntl
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gradgauge import metrics, traces
from gradgauge.jobs.outcome import (
    AnalysisJob,
    Data,
    Died,
    Failed,
    InspectionJob,
    Made,
    Outcome,
    Spec,
    Succeeded,
    Tell,
    Upload,
)
from gradgauge.jobs.queue import ANALYSE
from gradgauge.schema.report import Report
from gradgauge.settings import Settings
from gradgauge.store.blobs import BlobStore
from gradgauge.store.folders import make_folder
from gradgauge.worker import confined, runtime
from gradgauge.worker.forks import Zygote, ZygoteLost
from gradgauge.worker.frames import Answer, Problem, Request

log = structlog.get_logger()

# Where each stage of the engine begins and ends in the whole analysis, by its usual share of time
# (`python -m benchmarks.progress`). Where no remedy is tried the sampled engine takes nearly all of
# it, where many are a third; which it will be is not known before its end.
SHARES = {
    "read": (0.0, 0.01),
    "analytic": (0.01, 0.05),
    "sampled": (0.05, 0.7),
    "remedy": (0.7, 1.0),
}
# Endings in which the child did not say itself why: the next attempt may fare better.
_DEATHS = frozenset({"child_crashed", "child_lost", "child_not_started"})
# The metrics call a task as the queue does.
_QUEUES = {"analyze": ANALYSE, "patch": ANALYSE}
_MOST_THREADS = 8
_YOUNG_S = 10.0  # between the making of a folder and its lock, and a margin
_LOGGED = 2000
_PIECE = 1 << 20
_DATA = "batch.npz"


class ConfinedRunner:
    """A jobs.outcome.Runner over one zygote; `require` names the layers a child must have."""

    def __init__(
        self, zygote: Zygote, blobs: BlobStore, settings: Settings, require: tuple[str, ...]
    ) -> None:
        self._zygote = zygote
        self._blobs = blobs
        self._settings = settings
        self._require = require
        self._scratch = make_folder(settings.data_dir.expanduser().absolute() / "work")
        _sweep(self._scratch)

    async def inspect(self, job: InspectionJob) -> Outcome:
        """Read and check the upload; the result is the JSON of its facts."""
        async with self._laid_out(job.upload) as source:
            wall_s = self._settings.inspection_time_limit_s
            request = self._request("inspect", source, {}, job.upload.size_bytes, wall_s, threads=1)
            answer = await self._answer(request, wall_s, _deaf)
        if not isinstance(answer, dict):
            return answer
        return Succeeded(_encoded(answer | {"name": job.upload.name}))

    async def analyse(self, job: AnalysisJob, tell: Tell) -> Outcome:
        """Run the whole analysis; the result is a report, checked to be one."""
        async with self._laid_out(job.source, job.data) as source:
            request = self._analysing("analyze", job, source)
            exchange = source.parent / "exchange"
            exchange.mkdir(mode=0o700)
            request = runtime.with_exchange(request, exchange)
            answer = await self._answer(request, request.wall_s or 0.0, tell)
        if not isinstance(answer, dict):
            return answer
        name = job.source.name if isinstance(job.source, Upload) else None
        return await asyncio.to_thread(_reported, answer, name)

    async def patch(self, job: AnalysisJob, tell: Tell) -> Made | Failed | Died:
        """Make the model of the job's recommendation and put it into the spool."""
        async with self._laid_out(job.source, job.data) as source:
            made = source.with_name("patched.onnx")
            made.touch(mode=0o600)
            request = self._analysing("patch", job, source)
            request = request.model_copy(
                update={
                    "options": request.options | {"recommendation": job.recommendation},
                    "writable": (str(made),),
                    "file_bytes": self._settings.max_upload_bytes,
                }
            )
            answer = await self._answer(request, request.wall_s or 0.0, tell)
            if not isinstance(answer, dict):
                return answer
            facts = _patched(answer)
            if isinstance(facts, Failed):
                return facts
            received = await self._blobs.receive(_pieces(made), limit=request.file_bytes)
        spec = facts.spec.model_dump() if facts.spec is not None else None
        return Made(received, facts.changes, facts.function_preserving, spec)

    def _analysing(self, task: str, job: AnalysisJob, source: Path) -> Request:
        wall_s = self._settings.analysis_time_limit_s
        wall_s = min(wall_s, job.options.get("time_limit_s") or wall_s)
        size = job.source.size_bytes if isinstance(job.source, Upload) else 0
        threads = max(1, min(_MOST_THREADS, (os.cpu_count() or 1) // self._settings.analysis_slots))
        options = job.options
        if job.data is not None:
            options = options | {"data": str(source.with_name(_DATA))}
        return self._request(task, source, options, size, wall_s, threads=threads)

    @asynccontextmanager
    async def _laid_out(
        self, source: Upload | Spec, data: Data | None = None
    ) -> AsyncIterator[Path]:
        """A folder that holds the source, its data and nothing else: what the child may read."""
        await asyncio.to_thread(_sweep, self._scratch)
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, dir=self._scratch, prefix="job-"))
        lock = _locked(folder)
        try:
            if isinstance(source, Spec):
                path = folder / "spec.json"
                path.write_bytes(_encoded(source.document))
            else:
                path = folder / "model.onnx"
                await self._place(source.blob_key, path)
            if data is not None:
                await self._place(data.blob_key, folder / _DATA)
            yield path
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            os.close(lock)

    async def _place(self, key: str, path: Path) -> None:
        """Link the blob where it lies on this disk, else fetch it."""
        local = self._blobs.local_path(key)
        if local is not None:
            with suppress(OSError):  # another disk, or one without links
                await asyncio.to_thread(os.link, local, path)
                return
        await self._blobs.fetch(key, path)

    def _request(
        self,
        task: str,
        source: Path,
        options: dict[str, Any],
        size: int,
        wall_s: float,
        *,
        threads: int,
    ) -> Request:
        return Request(
            task=task,
            source=str(source),
            options=options,
            read_only=(str(source.parent),),
            memory_bytes=self._settings.analysis_memory_bytes,
            mapped_bytes=size,
            wall_s=wall_s,
            cpu_s=math.ceil(wall_s * threads) + 1,
            result_bytes=self._settings.max_report_bytes,
            threads=threads,
            require=self._require,
        )

    async def _answer(
        self, request: Request, wall_s: float, tell: Tell
    ) -> dict[str, Any] | Failed | Died:
        with traces.span("child", task=request.task):
            return await self._judged(request, wall_s, tell)

    async def _judged(
        self, request: Request, wall_s: float, tell: Tell
    ) -> dict[str, Any] | Failed | Died:
        try:
            outcome = await self._followed(request, wall_s, tell)
        except ZygoteLost as lost:
            return Died(lost.message)
        traces.note(pid=outcome.pid, peak_bytes=outcome.peak_bytes)
        metrics.child(_QUEUES.get(request.task, request.task), outcome.peak_bytes)
        log.info("child_ended", task=request.task, pid=outcome.pid, peak_bytes=outcome.peak_bytes)
        if outcome.problem is None:
            return outcome.result or {}
        _note(outcome, outcome.problem)
        traces.note(failed=outcome.problem.code[:40])
        if outcome.problem.code in _DEATHS:
            return Died(outcome.problem.message)
        return Failed(outcome.problem.model_dump(exclude={"exit"}))

    async def _followed(self, request: Request, wall_s: float, tell: Tell) -> confined.Outcome:
        """Run the child and pass its progress on; where that is refused, the child is killed."""
        news = _News()
        running = asyncio.create_task(
            self._zygote.arun(request, wall_s=wall_s, on_progress=news.put, respond=self._compare)
        )
        telling = asyncio.create_task(news.pass_on(tell))
        try:
            await asyncio.wait({running, telling}, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                telling.result()
            return await running
        finally:
            running.cancel()
            telling.cancel()
            await asyncio.wait({running, telling})
            news.stop()

    def _compare(self, request: Request, cancelled: confined.Cancelled) -> Answer:
        return runtime.answer(request, cancelled, self._zygote.run)


class _News:
    """The child's latest progress, put by a thread, passed on by a task of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._some = asyncio.Event()
        self._latest = ("read", 0.0)
        self._clock = metrics.StageClock()
        self._spans = traces.StageSpans()

    def stop(self) -> None:
        """There is no more news."""
        self._clock.stop()
        self._spans.emit(metrics.STAGES)

    def put(self, stage: str, fraction: float) -> None:
        self._clock.tell(stage)
        self._spans.tell(stage)
        self._loop.call_soon_threadsafe(self._set, stage, fraction)

    def _set(self, stage: str, fraction: float) -> None:
        self._latest = (stage, fraction)
        self._some.set()

    async def pass_on(self, tell: Tell) -> None:
        """Tell what is new for ever, skipping what is already old; raises what `tell` raises."""
        while True:
            await self._some.wait()
            self._some.clear()
            stage, fraction = self._latest
            await tell(stage, overall(stage, fraction))


def overall(stage: str, fraction: float) -> float:
    """The share of the whole analysis that is done, from 0 to 1, at `fraction` of `stage`."""
    start, end = SHARES.get(stage, (0.0, 1.0))
    return start + (end - start) * fraction


async def _deaf(_stage: str, _progress: float) -> None:
    """An inspection is too short to be watched."""


def _reported(answer: dict[str, Any], name: str | None) -> Succeeded | Failed:
    """The child's report if it is one; its model is called as whoever uploaded it called it."""
    try:
        report = Report.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        log.warning("malformed_report", reason=first["msg"], loc=first["loc"])
        return _malformed("a report")
    if name is not None:
        shown = name.removesuffix(".onnx").removesuffix(".zip") or name
        model = report.model.model_copy(update={"name": shown})
        report = report.model_copy(update={"model": model})
    return Succeeded(report.model_dump_json().encode(), report.summary.verdict)


_Told = Annotated[str, Field(max_length=1 << 22)]


class _SpecFacts(BaseModel):
    """What a child tells of the patch in a spec's own words."""

    model_config = ConfigDict(strict=True)

    text: _Told | None
    diff: _Told | None
    unsaid: Annotated[list[Annotated[str, Field(max_length=4000)]], Field(max_length=100_000)]


class _PatchFacts(BaseModel):
    """What a child tells of the model that it has made."""

    model_config = ConfigDict(strict=True)

    changes: Annotated[
        list[Annotated[str, Field(max_length=4000)]], Field(min_length=1, max_length=100_000)
    ]
    function_preserving: bool
    spec: _SpecFacts | None


def _patched(answer: dict[str, Any]) -> _PatchFacts | Failed:
    try:
        return _PatchFacts.model_validate(answer)
    except ValidationError as error:
        log.warning("malformed_patch", errors=error.error_count())
        return _malformed("what it says it made")


def _malformed(wanted: str) -> Failed:
    return Failed(
        Problem(
            code="malformed_result",
            message=f"the analysis child sent something that is not {wanted}",
            hint="the model may have taken over or broken the analysis; nothing was believed",
        ).model_dump(exclude={"exit"})
    )


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _PIECE):
            yield piece


def _encoded(value: dict[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def _note(outcome: confined.Outcome, problem: Problem) -> None:
    log.info(
        "child_refused", code=problem.code, reason=problem.message, stderr=outcome.log[-_LOGGED:]
    )


def _locked(folder: Path) -> int:
    """Hold the folder for as long as this process lives: its descriptor, which no child inherits.

    Raises:
        BlockingIOError: somebody else holds it.
    """
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(held)
        raise
    return held


def _sweep(scratch: Path) -> None:
    """Delete what killed workers of this machine left behind: folders that nobody holds."""
    for left in scratch.iterdir():
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _YOUNG_S:
                lock = _locked(left)
                shutil.rmtree(left, ignore_errors=True)
                os.close(lock)
