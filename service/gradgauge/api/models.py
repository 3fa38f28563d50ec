"""Models: uploaded, listed, read, deleted."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Query, Request, Response
from starlette.responses import StreamingResponse

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Cursor, Here, Id, Limit, Project
from gradgauge.api.paging import paged
from gradgauge.api.uploads import receive
from gradgauge.errors import NotFound
from gradgauge.formats.names import clean
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
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, before=cursor, state=state)
    return paged(resources.ModelPage, found, limit, wire)


@router.get("/{model_id}", responses=refusals("model_not_found"))
async def get_model(model_id: Id, here: Here, project: Project) -> resources.Model:
    """Read a model by its id, or by its content as `sha256:` and 64 hex digits."""
    async with here.database.autocommit() as session:
        if not model_id.startswith(_BY_CONTENT):
            return wire(await rows.get(session, project, model_id))
        held = await rows.by_sha256(session, project, model_id.removeprefix(_BY_CONTENT).lower())
    if held is None:
        raise NotFound("model_not_found", "the project holds no model with this content")
    return wire(held)


@router.get(
    "/{model_id}/content",
    response_class=StreamingResponse,
    responses=refusals("blob_not_found", "model_not_found")
    | {200: {"content": {"application/octet-stream": _BINARY}}},
)
async def get_content(
    model_id: Id,
    here: Here,
    project: Project,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """Read a model's file as it was uploaded or made: an .onnx or, with external data, a .zip."""
    async with here.database.autocommit() as session:
        row = await rows.get(session, project, model_id)
    headers = {
        "ETag": f'"{row.sha256}"',
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(clean(row.name), safe='')}",
    }
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    pieces = here.blobs.stream(row.blob_key)
    first = await anext(pieces, b"")  # a file that is gone is told before the answer has begun
    headers["Content-Length"] = str(row.size_bytes)
    return StreamingResponse(
        _after(first, pieces), media_type="application/octet-stream", headers=headers
    )


async def _after(first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in pieces:
        yield piece


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
