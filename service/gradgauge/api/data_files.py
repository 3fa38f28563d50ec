"""Data files: batches that analyses are fed with, uploaded, listed, read, deleted."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Cursor, Here, Id, Limit, Project
from gradgauge.api.paging import paged
from gradgauge.api.uploads import receive
from gradgauge.errors import NotFound
from gradgauge.jobs import data_files
from gradgauge.schema import resources
from gradgauge.store.repository import data_files as rows

router = APIRouter(prefix="/v1/data", tags=["data"])

_BY_CONTENT = "sha256:"
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "An .npz file: arrays named as graph inputs, and `target` or `y`.",
        "content": {"application/octet-stream": _BINARY, "multipart/form-data": _FORM},
    }
}


@router.post(
    "",
    status_code=201,
    openapi_extra=_BODY,
    responses={
        200: {"model": resources.DataFile},
        **refusals(
            "empty_upload",
            "invalid_form",
            "model_quota_exceeded",
            "storage_quota_exceeded",
            "upload_too_large",
        ),
    },
)
async def upload_data(
    request: Request,
    response: Response,
    here: Here,
    project: Project,
    name: Annotated[str | None, Query(max_length=255)] = None,
) -> resources.DataFile:
    """Upload a batch for the option `data`: 201, or 200 where the project holds the content.

    It is looked into by the analysis alone, which fails with `invalid_data` where it is none.
    """
    upload = await receive(request, here, project)
    row, added = await data_files.accept(
        here.database,
        here.blobs,
        here.queue.usual,
        project,
        name=name or upload.name or "data.npz",
        received=upload.received,
    )
    response.status_code = 201 if added else 200
    response.headers["Location"] = f"/v1/data/{row.id}"
    return wire(row)


@router.get("")
async def list_data(
    here: Here, project: Project, limit: Limit = 50, cursor: Cursor = None
) -> resources.DataFilePage:
    """List data files, newest first."""
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, before=cursor)
    return paged(resources.DataFilePage, found, limit, wire)


@router.get("/{data_id}", responses=refusals("data_not_found"))
async def get_data(data_id: Id, here: Here, project: Project) -> resources.DataFile:
    """Read a data file by its id, or by its content as `sha256:` and 64 hex digits."""
    async with here.database.autocommit() as session:
        if not data_id.startswith(_BY_CONTENT):
            return wire(await rows.get(session, project, data_id))
        held = await rows.by_sha256(session, project, data_id.removeprefix(_BY_CONTENT).lower())
    if held is None:
        raise NotFound("data_not_found", "the project holds no data file with this content")
    return wire(held)


@router.delete("/{data_id}", status_code=204, responses=refusals("data_in_use", "data_not_found"))
async def delete_data(data_id: Id, here: Here, project: Project) -> None:
    """Delete a data file; 409 while analyses with it are queued or running."""
    await data_files.remove(here.database, here.blobs, project, data_id)


def wire(row: object) -> resources.DataFile:
    """The row as clients see it."""
    return resources.DataFile.model_validate(row, from_attributes=True)
