"""Models: uploaded, listed, read, deleted."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Cursor, Here, Id, Limit, Project
from gradgauge.api.uploads import receive
from gradgauge.errors import NotFound
from gradgauge.jobs import uploads
from gradgauge.schema import resources
from gradgauge.store.repository import models as rows

router = APIRouter(prefix="/v1/models", tags=["models"])

_BY_CONTENT = "sha256:"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "An .onnx file, or a .zip of one and its external data.",
        "content": {
            "application/octet-stream": _BINARY,
            "application/zip": _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}


@router.post(
    "",
    status_code=201,
    openapi_extra=_BODY,
    responses={
        200: {"model": resources.Model},
        **refusals(
            "empty_upload",
            "invalid_form",
            "model_quota_exceeded",
            "storage_quota_exceeded",
            "upload_too_large",
        ),
    },
)
async def upload_model(
    request: Request,
    response: Response,
    here: Here,
    project: Project,
    name: Annotated[str | None, Query(max_length=255)] = None,
) -> resources.Model:
    """Upload a model: 201, or 200 where the project holds the content already.

    The model is `inspecting`, soon `ready` (with facts) or `rejected` (with the problem).
    """
    upload = await receive(request, here, project)
    row, added = await uploads.accept(
        here.database,
        here.blobs,
        here.queue,
        project,
        name=name or upload.name or "model.onnx",
        received=upload.received,
        request_id=request.state.request_id,
    )
    response.status_code = 201 if added else 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return wire(row)


@router.get("")
async def list_models(
    here: Here,
    project: Project,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[Literal["inspecting", "ready", "rejected"] | None, Query()] = None,
) -> resources.ModelPage:
    """List models, newest first."""
    async with here.database.session() as session:
        found = await rows.page(session, project, limit=limit + 1, before=cursor, state=state)
    more = found[limit - 1].id if len(found) > limit else None
    return resources.ModelPage(items=[wire(row) for row in found[:limit]], next_cursor=more)


@router.get("/{model_id}", responses=refusals("model_not_found"))
async def get_model(model_id: Id, here: Here, project: Project) -> resources.Model:
    """Read a model by its id, or by its content as `sha256:` and 64 hex digits."""
    async with here.database.session() as session:
        if not model_id.startswith(_BY_CONTENT):
            return wire(await rows.get(session, project, model_id))
        held = await rows.by_sha256(session, project, model_id.removeprefix(_BY_CONTENT).lower())
    if held is None:
        raise NotFound("model_not_found", "the project holds no model with this content")
    return wire(held)


@router.delete(
    "/{model_id}", status_code=204, responses=refusals("model_in_use", "model_not_found")
)
async def delete_model(
    model_id: Id,
    here: Here,
    project: Project,
    *,
    reports: Annotated[
        bool, Query(description="Delete its analyses and their reports with it.")
    ] = False,
) -> None:
    """Delete a model and its file; 409 while analyses of it are queued or running."""
    await uploads.remove(here.database, here.blobs, project, model_id, reports=reports)


def wire(row: object) -> resources.Model:
    """The row as clients see it."""
    return resources.Model.model_validate(row, from_attributes=True)
