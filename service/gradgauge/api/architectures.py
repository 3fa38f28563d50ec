"""Architecture specs: validated, stored, read; and their JSON Schema."""

import json
from typing import Any

from fastapi import APIRouter, Request, Response

from gradgauge.api.contract import SPEC, refusals
from gradgauge.api.deps import Cursor, Here, Id, Limit, Project
from gradgauge.api.json_body import read_body
from gradgauge.api.paging import paged
from gradgauge.api.problems import NotReadable, Refused
from gradgauge.jobs import quotas
from gradgauge.schema import resources
from gradgauge.schema.document import Format
from gradgauge.schema.spec import DEFAULT_LIMITS, ArchSpec, parse_spec
from gradgauge.schema.spec_shapes import count
from gradgauge.store.repository import architectures as rows

router = APIRouter(prefix="/v1", tags=["architectures"])

FORMATS: dict[str, Format | None] = {
    "application/json": "json",
    "application/yaml": "yaml",
    "application/x-yaml": "yaml",
    "text/yaml": "yaml",
    "text/x-yaml": "yaml",
    "text/plain": None,
    "application/octet-stream": None,
    "application/x-www-form-urlencoded": None,  # what curl says of --data-binary
    "": None,
}
_SCHEMA = {"$ref": "#/components/schemas/ArchSpec"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _SCHEMA},
            "application/yaml": {"schema": _SCHEMA},
        },
    }
}


@router.post(
    "/architectures",
    status_code=201,
    openapi_extra=_BODY,
    responses={
        200: {"model": resources.Architecture},
        **refusals(*SPEC, "model_quota_exceeded", "unsupported_media_type"),
    },
)
async def create_architecture(
    request: Request, response: Response, here: Here, project: Project
) -> resources.Architecture:
    """Validate and store a spec: 201, or 200 where the project holds it already."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in FORMATS:
        said = NotReadable(
            "unsupported_media_type",
            "a spec is JSON or YAML",
            hint="send it with Content-Type: application/yaml or application/json",
        )
        raise Refused(said, 415)
    spec = checked(await read_body(request, DEFAULT_LIMITS.max_bytes), FORMATS[kind])
    async with here.database.session() as session:
        row, added = await rows.add(session, project, name=spec.name, spec=stored(spec))
        if added:
            await quotas.kept(session, project, here.queue.usual)
    response.status_code = 201 if added else 200
    response.headers["Location"] = f"/v1/architectures/{row.id}"
    return wire(row)


@router.get("/architectures")
async def list_architectures(
    here: Here, project: Project, limit: Limit = 50, cursor: Cursor = None
) -> resources.ArchitecturePage:
    """List architectures, newest first."""
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=limit + 1, before=cursor)
    return paged(resources.ArchitecturePage, found, limit, wire)


@router.get("/architectures/{architecture_id}", responses=refusals("architecture_not_found"))
async def get_architecture(
    architecture_id: Id, here: Here, project: Project
) -> resources.Architecture:
    """Read an architecture."""
    async with here.database.autocommit() as session:
        return wire(await rows.get(session, project, architecture_id))


@router.delete(
    "/architectures/{architecture_id}",
    status_code=204,
    responses=refusals("architecture_in_use", "architecture_not_found"),
)
async def delete_architecture(architecture_id: Id, here: Here, project: Project) -> None:
    """Delete an architecture; 409 while analyses of it are queued or running."""
    async with here.database.session() as session:
        await rows.delete(session, project, architecture_id)


@router.get("/schemas/architecture")
async def get_architecture_schema() -> dict[str, Any]:
    """Read the JSON Schema (draft 2020-12) of a spec."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ArchSpec.model_json_schema(),
    }


def checked(text: bytes, form: Format | None) -> ArchSpec:
    """The spec in `text`, its shapes and counts checked.

    Raises:
        InvalidSpec: `where` names the path.
        LimitExceeded: it is too large.
    """
    spec = parse_spec(text, format=form)
    count(spec)
    return spec


def of_document(document: dict[str, Any]) -> ArchSpec:
    """The spec a request holds as JSON; raises what `checked` does."""
    return checked(json.dumps(document).encode(), "json")


def stored(spec: ArchSpec) -> dict[str, Any]:
    """What of a spec is kept: what its author said, in our spelling."""
    return spec.model_dump(mode="json", exclude_unset=True)


def wire(row: object) -> resources.Architecture:
    """The row as clients see it."""
    return resources.Architecture.model_validate(row, from_attributes=True)
