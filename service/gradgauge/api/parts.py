"""Uploads in parts, for what is too large or too far away to come at once."""

import base64
import re
from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import Field

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Id, Project, Services
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.models import wire as wire_model
from gradgauge.api.uploads import receive_part
from gradgauge.errors import LimitExceeded
from gradgauge.jobs import parts
from gradgauge.schema import resources
from gradgauge.schema.strict import Strict
from gradgauge.schema.wire import Block, Count, Text
from gradgauge.store.repository import uploads as rows

router = APIRouter(prefix="/v1/uploads", tags=["models"])
strict = APIRouter(prefix="/v1/uploads", tags=["models"], route_class=StrictRoute)

MOST_PARTS = 10_000
_DIGEST = r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/]{43}=):"
_BINARY = {"schema": {"type": "string", "format": "binary"}}

Number = Annotated[int, Path(ge=1, le=MOST_PARTS)]
Digest = Annotated[
    str | None,
    Header(
        alias="Content-Digest",
        max_length=500,
        pattern=_DIGEST,
        description="RFC 9530, `sha-256=:...:`; a part that has another hash is not kept.",
    ),
]


class UploadRequest(Strict):
    """What is about to come."""

    name: Annotated[str, Field(min_length=1, max_length=255)] = "model.onnx"
    size_bytes: Annotated[int | None, Field(ge=1, lt=1 << 62)] = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None


class Part(Block):
    """A part that has come whole."""

    number: Count
    size_bytes: Count
    sha256: Text


class PartedUpload(Block):
    """An upload in parts; what is in `parts` need not be sent again."""

    id: Text
    name: Text
    size_bytes: Count | None
    sha256: Text | None
    state: Text
    """open, completing or completed."""
    received_bytes: Count
    parts: list[Part]
    model_id: Text | None
    """What it has become."""
    created_at: datetime
    expires_at: datetime
    """When it is given up, unless something comes before."""


@strict.post(
    "",
    status_code=201,
    responses=refusals(
        "invalid_json", "too_many_uploads", "unsupported_media_type", "upload_too_large"
    ),
)
async def create_upload(
    asked: UploadRequest, response: Response, here: Here, project: Project
) -> PartedUpload:
    """Begin an upload in parts."""
    limit = here.settings.max_upload_bytes
    if asked.size_bytes is not None and asked.size_bytes > limit:
        raise LimitExceeded(
            "upload_too_large",
            f"the upload is larger than {limit} bytes",
            limit=f"max_upload_bytes={limit}",
            hint="raise GRADGAUGE_MAX_UPLOAD_BYTES on the server, or check the model with --local",
        )
    async with here.database.session() as session:
        row = await rows.add(session, project, **asked.model_dump())
    response.headers["Location"] = f"/v1/uploads/{row.id}"
    return _wire(here, row, [])


@router.get("/{upload_id}", responses=refusals("upload_not_found"))
async def get_upload(upload_id: Id, here: Here, project: Project) -> PartedUpload:
    """Read an upload: which parts have come."""
    async with here.database.autocommit() as session:
        row = await rows.get(session, project, upload_id)
        return _wire(here, row, await rows.parts(session, upload_id))


@router.put(
    "/{upload_id}/parts/{number}",
    responses=refusals(
        "digest_mismatch",
        "empty_upload",
        "model_quota_exceeded",
        "storage_quota_exceeded",
        "upload_closed",
        "upload_not_found",
        "upload_too_large",
    ),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The part's bytes.",
            "content": {"application/octet-stream": _BINARY},
        }
    },
)
async def put_part(
    upload_id: Id,
    number: Number,
    request: Request,
    here: Here,
    project: Project,
    digest: Digest = None,
) -> Part:
    """Send a part, from 1 on; one that broke off is sent again, one that came is replaced."""
    announced = _sha256(digest)
    async with here.database.autocommit() as session:
        row = await rows.get(session, project, upload_id)
    received = await receive_part(request, here, project)
    if announced not in {None, received.sha256}:
        received.discard()
        raise parts.DigestMismatch(
            "digest_mismatch",
            f"the part has the SHA-256 {received.sha256}, {announced} was announced",
            hint="send it again",
        )
    told = Part(number=number, size_bytes=received.size_bytes, sha256=received.sha256)
    limit = here.settings.max_upload_bytes
    await parts.keep_part(here.database, here.blobs, row, number, received, limit=limit)
    return told


@router.post(
    "/{upload_id}:complete",
    status_code=201,
    responses={
        200: {"model": resources.Model},
        **refusals(
            "digest_mismatch",
            "model_not_found",
            "model_quota_exceeded",
            "parts_missing",
            "storage_quota_exceeded",
            "upload_not_found",
            "upload_too_large",
        ),
    },
)
async def complete_upload(
    upload_id: Id, request: Request, response: Response, here: Here, project: Project
) -> resources.Model:
    """Join the parts to a model: 201, or 200 where the project holds the content already."""
    row, added = await parts.complete(
        here.database,
        here.blobs,
        here.queue,
        project,
        upload_id,
        limit=here.settings.max_upload_bytes,
        request_id=request.state.request_id,
    )
    response.status_code = 201 if added else 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return wire_model(row)


@router.delete("/{upload_id}", status_code=204, responses=refusals("upload_not_found"))
async def delete_upload(upload_id: Id, here: Here, project: Project) -> None:
    """Give an upload up; a model it has become stays."""
    await parts.remove(here.database, here.blobs, project, upload_id)


def _sha256(told: str | None) -> str | None:
    found = re.search(_DIGEST, told or "")
    return base64.b64decode(found[1]).hex() if found else None


def _wire(here: Services, row: rows.Row, held: list[rows.PartRow]) -> PartedUpload:
    told = [Part.model_validate(part, from_attributes=True) for part in held]
    return PartedUpload(
        id=row.id,
        name=row.name,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        state=row.state,
        received_bytes=sum(part.size_bytes for part in told),
        parts=told,
        model_id=row.model_id,
        created_at=row.created_at,
        expires_at=row.touched_at + timedelta(hours=here.settings.upload_hours),
    )
