"""Reports that a client kept: compared, judged, written out; nothing is stored or looked up."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, StringConstraints, ValidationError, model_validator
from starlette.responses import PlainTextResponse, Response

from gradgauge.api.comparisons import Comparison, comparison
from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Services
from gradgauge.api.json_body import read_body, read_json, require_json
from gradgauge.api.problems import NotReadable, Refused
from gradgauge.formats.render import OF_MANY, render, render_all
from gradgauge.formats.subject import LONGEST_PATH
from gradgauge.schema.report import Report
from gradgauge.schema.strict import Strict, refused
from gradgauge.schema.wire import Listed
from gradgauge.verdict.changes import PairRequest, compared
from gradgauge.verdict.files import JudgementRequest, judged

router = APIRouter(prefix="/v1", tags=["kept reports"])

Asked = TypeVar("Asked", bound=BaseModel)
Answer = TypeVar("Answer")
Form = Literal["markdown", "html", "sarif", "junit", "gitlab", "github", "model-explorer"]
_Path = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_PATH)]
_REFUSED = ("invalid_json", "unsupported_media_type")
_WHOLE = "compare by the analyses' ids, or where the service package is installed"


class RenderingRequest(Strict):
    """Reports to be written out in a format."""

    format: Form
    reports: Annotated[
        Listed[Report],
        Field(min_length=1, max_length=1000, description="One, but for formats of pipelines."),
    ]
    paths: Listed[_Path] | None = Field(
        default=None,
        description="Of each model in its repository, for formats of pipelines; else its name.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.format not in OF_MANY and len(self.reports) > 1:
            raise refused(f"{self.format} is of one report", field="reports")
        if self.paths is not None and len(self.paths) != len(self.reports):
            raise refused("there is to be a path for each report", field="paths")
        return self


def _body(kind: type[BaseModel]) -> dict[str, Any]:
    """A route's body in the contract; what it refers to is there with the report."""
    told = kind.model_json_schema(ref_template="#/components/schemas/{model}")
    told.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": told}}}}


@router.post(
    "/reports:compare",
    openapi_extra=_body(PairRequest),
    responses=refusals(*_REFUSED, "invalid_policy"),
)
async def compare_reports(request: Request, here: Here) -> Comparison:
    """Compare two reports that come along and judge the later one; their ids name them."""
    return await _answered(request, here, PairRequest, _compared)


@router.post(
    "/reports:judge",
    response_model=Report,
    openapi_extra=_body(JudgementRequest),
    responses=refusals(*_REFUSED, "invalid_policy"),
)
async def judge_report(request: Request, here: Here) -> Response:
    """Judge a report that comes along, as of today (UTC), against an earlier one if there is."""
    told = await _answered(request, here, JudgementRequest, _judged)
    return Response(told, media_type="application/json")


@router.post(
    "/reports:render",
    openapi_extra=_body(RenderingRequest),
    response_class=PlainTextResponse,
    responses=refusals(*_REFUSED),
)
async def render_reports(request: Request, here: Here) -> Response:
    """Write out reports that come along, as text whatever the format."""
    return PlainTextResponse(await _answered(request, here, RenderingRequest, _rendered))


async def _answered(
    request: Request, here: Services, kind: type[Asked], answer: Callable[[Asked], Answer]
) -> Answer:
    """What `answer` makes of the body, both in a thread, one request at a time."""
    limit = here.settings.max_kept_bytes
    body = await read_body(request, limit, setting="max_kept_bytes", hint=_WHOLE)
    if body:
        require_json(request)
    async with here.kept:
        return await asyncio.to_thread(lambda: answer(_read(body, kind)))


def _read(body: bytes, kind: type[Asked]) -> Asked:
    try:
        return kind.model_validate(read_json(body) if body else None)
    except NotReadable as error:
        raise Refused(error) from error
    except ValidationError as error:
        raise RequestValidationError(
            error.errors(include_url=False, include_input=False)
        ) from error


def _compared(asked: PairRequest) -> Comparison:
    told, after = compared(asked)
    return comparison(told, after, base=asked.base.id, head=asked.head.id)


def _judged(asked: JudgementRequest) -> str:
    return judged(asked.report, asked, asked.decided()).model_dump_json()


def _rendered(asked: RenderingRequest) -> str:
    if asked.format in OF_MANY:
        paths = asked.paths or [report.model.name for report in asked.reports]
        return render_all(asked.reports, paths, asked.format)
    return render(asked.reports[0], asked.format)
