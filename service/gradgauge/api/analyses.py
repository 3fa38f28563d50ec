"""Analyses: asked for, listed, watched, cancelled."""

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterable, AsyncIterator
from importlib.metadata import version
from typing import Annotated, Any, Literal, Self

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import Field, model_validator
from sqlalchemy.ext.asyncio import AsyncSession

from gradgauge import traces
from gradgauge.api.architectures import of_document, stored
from gradgauge.api.contract import SPEC, refusals
from gradgauge.api.deps import REFERENCE, Cursor, Here, Id, Limit, Of, Project, Services
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.paging import paged
from gradgauge.errors import InvalidOptions, ModelRejected, NotFound, Unavailable
from gradgauge.jobs import quotas, uploads
from gradgauge.jobs.progress import follow
from gradgauge.jobs.queue import Idempotency, Submitted
from gradgauge.schema import resources
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.strict import Strict, refused
from gradgauge.store.repository import analyses as rows
from gradgauge.store.repository import architectures, data_files, direct, models

router = APIRouter(prefix="/v1/analyses", tags=["analyses"], route_class=StrictRoute)

log = structlog.get_logger()

_VERSION = version("gradgauge")  # read once: it takes a millisecond

FINAL = frozenset({"succeeded", "failed", "cancelled"})
_DATA_ID = re.compile(r"dat_[0-9a-z]{26}")
_Reference = Annotated[str, Field(pattern=REFERENCE)]


class AnalysisRequest(Strict):
    """What to analyse (exactly one of the three) and how."""

    model_id: _Reference | None = None
    architecture_id: _Reference | None = None
    architecture: dict[str, Any] | None = Field(
        default=None, description="A spec as at POST /v1/architectures."
    )
    options: AnalysisOptions = Field(default_factory=AnalysisOptions)
    fresh: bool = Field(
        default=False, description="Analyse again although a result of the same is there."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [self.model_id, self.architecture_id, self.architecture]
        if sum(source is not None for source in given) != 1:
            raise refused("give exactly one of model_id, architecture_id, architecture")
        return self


Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key with the same body is the same analysis, for a day.",
    ),
]


@router.post(
    "",
    status_code=202,
    responses={
        200: {"model": resources.Analysis},
        **refusals(
            *SPEC,
            "architecture_not_found",
            "data_not_accepted",
            "data_not_found",
            "idempotency_in_flight",
            "idempotency_key_reused",
            "invalid_json",
            "model_not_found",
            "model_quota_exceeded",
            "model_rejected",
            "queue_quota_exceeded",
            "storage_quota_exceeded",
            "unsupported_media_type",
        ),
    },
)
async def create_analysis(
    asked: AnalysisRequest,
    request: Request,
    response: Response,
    here: Here,
    project: Project,
    key: Key = None,
) -> resources.Analysis:
    """Ask for an analysis: 202, or 200 where its result is there already."""
    idempotency = None
    if key is not None:
        idempotency = Idempotency(key, hashlib.sha256(await request.body()).hexdigest())
    submitted = await submit(here, project, asked, idempotency, request_id=request.state.request_id)
    analysis = wire(submitted.analysis)
    log.info("analysis_asked_for", analysis=analysis.id, state=analysis.state)
    response.headers["Location"] = f"/v1/analyses/{analysis.id}"
    if analysis.state in FINAL:
        response.status_code = 200
    else:
        response.headers["Retry-After"] = "1"
    return analysis


async def submit(
    here: Services,
    project: str,
    asked: AnalysisRequest,
    idempotency: Idempotency | None = None,
    *,
    request_id: str | None = None,
) -> Submitted:
    """Queue what was asked for, or find it answered.

    Raises:
        InvalidInput: the options or the architecture.
        NotFound: there is no such model, architecture or data file.
        ModelRejected: the model's inspection refused it.
        KeyInFlight, KeyReused: by the idempotency key.
        TooManyWaiting, QuotaExceeded: the project may have no other.
    """
    data = asked.options.data
    if data is not None and not _DATA_ID.fullmatch(str(data)):
        raise InvalidOptions(
            "data_not_accepted",
            "a path means nothing here: give the id of a data file of the project",
            where="data",
            hint="upload it to /v1/data, or use gradgauge check --local --data FILE",
        )
    if asked.architecture is None and data is None:
        quick = await _at_once(here, project, asked, idempotency, request_id)
        if quick:
            return quick
    async with here.database.session() as session:
        # A repeated request is answered as its first was, whatever became of the model since.
        known = idempotency and await here.queue.recall(session, project, idempotency)
        if known:
            return known
        new = await _new(session, here, project, asked, request_id)
        return await here.queue.submit_analysis(
            session, new, idempotency=idempotency, fresh=asked.fresh
        )


async def _at_once(
    here: Services,
    project: str,
    asked: AnalysisRequest,
    idempotency: Idempotency | None,
    request_id: str | None,
) -> Submitted | None:
    """Answer from an earlier result or queue what is ready: a question to the database each.

    None where the usual way has to be taken.
    """
    async with here.database.direct() as connection:
        source = await direct.source(
            connection, project, model_id=asked.model_id, architecture_id=asked.architecture_id
        )
        if source is None:
            return None
        new = _described(
            project,
            asked,
            request_id,
            source.sha256,
            name=source.name,
            model_id=asked.model_id,
            architecture_id=asked.architecture_id,
        )
        if idempotency is None and not asked.fresh:
            answered = await direct.answer(connection, new)
            if answered:
                return Submitted(answered, created=True)
        return await here.queue.submit_at_once(
            connection, new, idempotency=idempotency, fresh=asked.fresh
        )


async def _new(
    session: AsyncSession,
    here: Services,
    project: str,
    asked: AnalysisRequest,
    request_id: str | None,
) -> rows.NewAnalysis:
    source: dict[str, Any]
    if asked.model_id is not None:
        model = await models.get(session, project, asked.model_id)
        if model.problem is not None:
            raise ModelRejected(model.id, model.problem)
        source = {"name": model.name, "model_id": model.id}
        content = model.sha256
    else:
        if asked.architecture_id is not None:
            held = await architectures.get(session, project, asked.architecture_id)
        else:
            spec = of_document(asked.architecture or {})
            held, added = await architectures.add(
                session, project, name=spec.name, spec=stored(spec)
            )
            if added:
                await quotas.kept(session, project, here.queue.usual)
        source = {"name": held.name, "architecture_id": held.id}
        content = held.sha256
    data = None
    if asked.options.data is not None:
        fed = await data_files.get(session, project, str(asked.options.data), lock="shared")
        data = fed.sha256
    return _described(project, asked, request_id, content, data_sha256=data, **source)


def _described(
    project: str,
    asked: AnalysisRequest,
    request_id: str | None,
    content: str,
    *,
    data_sha256: str | None = None,
    **source: Any,
) -> rows.NewAnalysis:
    told = [content, asked.options.digest(data_sha256=data_sha256), _VERSION]
    return rows.NewAnalysis(
        project_id=project,
        options=asked.options.model_dump(mode="json", exclude_unset=True),
        cache_key=hashlib.sha256(json.dumps(told).encode()).hexdigest(),
        request_id=request_id,
        traceparent=traces.traceparent(),
        **source,
    )


@router.get("")
async def list_analyses(
    here: Here,
    project: Project,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[
        Literal["queued", "running", "succeeded", "failed", "cancelled"] | None, Query()
    ] = None,
    verdict: Annotated[Literal["pass", "warn", "fail", "inconclusive"] | None, Query()] = None,
    model_id: Of = None,
    architecture_id: Of = None,
) -> resources.AnalysisPage:
    """List analyses, newest first."""
    async with here.database.autocommit() as session:
        found = await rows.page(
            session,
            project,
            limit=limit + 1,
            before=cursor,
            state=state,
            verdict=verdict,
            model_id=model_id,
            architecture_id=architecture_id,
        )
    return paged(resources.AnalysisPage, found, limit, wire)


async def existing(analysis_id: Id, here: Here, project: Project) -> resources.Analysis:
    """The analysis of the path; raises NotFound."""
    async with here.database.direct() as connection:
        found = await direct.analysis(connection, project, analysis_id)
    if found is None:
        raise NotFound("analysis_not_found", f"there is no analysis {analysis_id[:64]}")
    return wire(found)


Existing = Annotated[resources.Analysis, Depends(existing)]


@router.get(
    "/{analysis_id}",  # noqa: FAST003 - Existing takes it
    responses=refusals("analysis_not_found"),
)
async def get_analysis(analysis: Existing, response: Response) -> resources.Analysis:
    """Read an analysis: its state, stage and progress, and its error once it has failed."""
    if analysis.state not in FINAL:
        response.headers["Retry-After"] = "1"
    return analysis


@router.delete(
    "/{analysis_id}",
    status_code=204,
    responses=refusals("analysis_in_progress", "analysis_not_found"),
)
async def delete_analysis(analysis_id: Id, here: Here, project: Project) -> None:
    """Delete an analysis and its report; 409 while it is queued or running."""
    await uploads.remove_analysis(here.database, here.blobs, project, analysis_id)


@router.post("/{analysis_id}:cancel", responses=refusals("analysis_not_found"))
async def cancel_analysis(analysis_id: Id, here: Here, project: Project) -> resources.Analysis:
    """Cancel a queued or running analysis; one that has ended stays as it is."""
    async with here.database.session() as session:
        return wire(await here.queue.cancel(session, project, analysis_id))


@router.get(
    "/{analysis_id}/events",  # noqa: FAST003 - Existing takes it
    response_class=EventSourceResponse,
    responses=refusals("analysis_not_found"),
)
async def watch_analysis(
    analysis: Existing,
    here: Here,
    project: Project,
    last_id: Annotated[int, Header(alias="Last-Event-ID", ge=0, lt=1 << 63)] = 0,
) -> AsyncIterable[resources.AnalysisEvent]:
    """Watch an analysis: its events above `Last-Event-ID` as they happen, until its end."""
    source = follow(here.database, here.hub, project, analysis.id, after=last_id)
    async for row in _until(here.stopping, source):
        if row is not None:
            event = resources.AnalysisEvent.model_validate(row, from_attributes=True)
            yield ServerSentEvent(data=event, id=str(event.id))  # type: ignore[misc]  # its envelope


async def _until(stopping: asyncio.Event, source: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Yield from `source` until it ends, the process stops or the database is away."""
    stop = asyncio.create_task(stopping.wait())
    following: asyncio.Task[Any] | None = None
    try:
        while True:
            following = asyncio.ensure_future(anext(source))
            await asyncio.wait({following, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            try:
                yield following.result()
            except (StopAsyncIteration, Unavailable):
                return
    finally:
        stop.cancel()
        if following is not None and not following.done():
            following.cancel()
            await asyncio.wait({following})


def wire(row: object) -> resources.Analysis:
    """The row as clients see it."""
    return resources.Analysis.model_validate(row, from_attributes=True)
