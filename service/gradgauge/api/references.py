"""Models by reference: fetched by the service from where it is allowed to, then as uploads are."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from gradgauge import metrics
from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Project
from gradgauge.api.json_body import StrictRoute
from gradgauge.api.models import wire
from gradgauge.api.problems import NotReadable
from gradgauge.api.uploads import bounded
from gradgauge.jobs import uploads
from gradgauge.jobs.parts import DigestMismatch
from gradgauge.jobs.references import name_of, shown
from gradgauge.schema import resources
from gradgauge.schema.strict import Strict

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=StrictRoute)


class FetchRequest(Strict):
    """A model that lies elsewhere: an .onnx file, or a .zip of one and its external data."""

    reference: Annotated[str, Field(min_length=1, max_length=2000)]
    """`https://host/path`, `s3://bucket/key`, `hf://owner/repository/path` or
    `models:/name/version`."""
    name: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    sha256: Annotated[str | None, Field(pattern=r"^[0-9a-f]{64}$")] = None
    """What it has to have; another is not kept."""


@router.post(
    ":fetch",
    status_code=201,
    responses={
        200: {"model": resources.Model},
        **refusals(
            "address_refused",
            "digest_mismatch",
            "empty_upload",
            "fetching_off",
            "invalid_json",
            "invalid_reference",
            "invalid_url",
            "model_quota_exceeded",
            "reference_not_allowed",
            "reference_not_found",
            "reference_refused",
            "reference_unreachable",
            "storage_quota_exceeded",
            "too_many_fetches",
            "unsupported_media_type",
            "upload_too_large",
        ),
    },
)
async def fetch_model(
    asked: FetchRequest, request: Request, response: Response, here: Here, project: Project
) -> resources.Model:
    """Fetch a model: 201, or 200 where the project holds the content already.

    The answer comes once the whole model has; nothing is kept of one that does not come whole.
    """
    reference = here.fetcher.read(asked.reference)
    async with bounded(here, project) as limit:
        received = await here.fetcher.fetch(project, reference, limit=limit)
    if received.size_bytes == 0 or asked.sha256 not in {None, received.sha256}:
        received.discard()
        if received.size_bytes == 0:
            raise NotReadable("empty_upload", "the reference leads to an empty file")
        raise DigestMismatch(
            "digest_mismatch",
            f"what was fetched has the SHA-256 {received.sha256}, {asked.sha256} was expected",
            hint="look at what lies there now",
        )
    metrics.uploaded(received.size_bytes)
    row, added = await uploads.accept(
        here.database,
        here.blobs,
        here.queue,
        project,
        name=asked.name or name_of(reference),
        received=received,
        source=shown(reference),
        request_id=request.state.request_id,
    )
    response.status_code = 201 if added else 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return wire(row)
