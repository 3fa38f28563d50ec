"""A report's recommendations, applied: a confined job makes the model that was measured."""

import asyncio
import hashlib
import json
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Path, Request, Response

from gradgauge.api.analyses import FINAL, wire
from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Id, Project
from gradgauge.api.reports import report_key
from gradgauge.errors import Conflict, NotFound
from gradgauge.schema import resources
from gradgauge.store.repository import analyses as rows

router = APIRouter(prefix="/v1/analyses", tags=["reports"])

log = structlog.get_logger()

RecommendationId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,40}$")]


@router.post(
    "/{analysis_id}/recommendations/{recommendation_id}:apply",
    status_code=202,
    responses={
        200: {"model": resources.Analysis},
        **refusals(
            "analysis_not_found",
            "blob_not_found",
            "model_not_found",
            "no_patch",
            "no_report",
            "queue_quota_exceeded",
            "recommendation_not_found",
            "source_deleted",
            "storage_quota_exceeded",
        ),
    },
)
async def apply_recommendation(
    analysis_id: Id,
    recommendation_id: RecommendationId,
    request: Request,
    response: Response,
    here: Here,
    project: Project,
) -> resources.Analysis:
    """Have a recommendation applied to a copy of what was analysed.

    Watched and cancelled as an analysis; once it has succeeded, `application.model_id` names the
    new model of the project, whose file is at `/v1/models/{model_id}/content`. 200 where the same
    has been applied before and that model is still there.
    """
    content = await here.blobs.get(await report_key(here, project, analysis_id))
    wanted = await asyncio.to_thread(_wanted, content, recommendation_id)
    async with here.database.session() as session:
        row = await rows.get(session, project, analysis_id)
        new = _new(row, wanted, request.state.request_id)
        submitted = await here.queue.submit_application(session, new)
    made = wire(submitted.analysis)
    log.info("recommendation_asked_for", analysis=made.id, state=made.state)
    response.headers["Location"] = f"/v1/analyses/{made.id}"
    if made.state in FINAL:
        response.status_code = 200
    else:
        response.headers["Retry-After"] = "1"
    return made


def _wanted(content: bytes, recommendation_id: str) -> dict[str, Any]:
    """What the report says of the recommendation.

    Raises:
        NotFound: it has none of this id.
        Conflict: it is a setting of training, which changes no model.
    """
    held = {one["id"]: one for one in json.loads(content)["recommendations"]}
    found = held.get(recommendation_id)
    if found is None:
        raise NotFound(
            "recommendation_not_found",
            f"the report has no recommendation {recommendation_id}",
            hint=f"it has {', '.join(held) or 'none'}"[:200],
        )
    if found["cost"] == "config":
        raise Conflict(
            "no_patch",
            f"{found['id']} ({found['action']}) is a setting of training and changes no model",
            hint="set it in the training script: the recommendation's snippets say how",
        )
    return {"recommendation_id": found["id"]} | {
        name: found[name] for name in ("action", "title", "finding_ids")
    }


def _new(row: rows.Row, wanted: dict[str, Any], request_id: str) -> rows.NewAnalysis:
    if row.model_id is None and row.architecture_id is None:
        raise Conflict(
            "source_deleted",
            "what was analysed has been deleted",
            hint="upload and analyse it again",
        )
    pending: dict[str, Any] = {
        "model_id": None,
        "changes": [],
        "function_preserving": None,
        "spec": None,
    }
    told = json.dumps([row.cache_key, wanted]).encode()
    return rows.NewAnalysis(
        project_id=row.project_id,
        name=row.name,
        options=row.options,
        cache_key=hashlib.sha256(told).hexdigest(),
        model_id=row.model_id,
        architecture_id=row.architecture_id,
        application={"analysis_id": row.id, **wanted, **pending},
        request_id=request_id,
    )
