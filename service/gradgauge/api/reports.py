"""Reports: the stored JSON, with the fields that came since, or rendered for people."""

import asyncio
import hashlib
import json
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from starlette.responses import Response

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Id, Project, Services
from gradgauge.api.problems import NotReadable, Refused
from gradgauge.errors import Conflict
from gradgauge.formats.render import OF_MANY, render, render_all
from gradgauge.formats.subject import LONGEST_PATH
from gradgauge.schema.columns import Columns, columns
from gradgauge.schema.earlier import completed_report
from gradgauge.schema.report import Report
from gradgauge.store.repository import analyses as rows

router = APIRouter(prefix="/v1/analyses", tags=["reports"])

Format = Literal["json", "markdown", "html", "sarif", "junit", "gitlab", "github", "model-explorer"]
Layout = Annotated[
    Literal["rows", "columnar"],
    Query(description="`columnar`: of the layers one list a quantity, in JSON."),
]
TYPES: dict[Format, str] = {
    "json": "application/json",
    "markdown": "text/markdown",
    "html": "text/html",
    "sarif": "application/sarif+json",
    "junit": "application/xml",
    "gitlab": "application/json",
    "github": "text/plain",
    "model-explorer": "application/json",
}
# By `format` only: their types say too little of them.
_UNNEGOTIATED: tuple[Format, ...] = ("junit", "gitlab", "github", "model-explorer")
# The report's own policy, in its head, names the hash of its style; this bounds what it may name.
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)


class ColumnarReport(Report):
    """A report whose layers stand by column."""

    layers: Columns  # type: ignore[assignment]  # by column instead of by row


@router.get(
    "/{analysis_id}/report",
    response_model=Report | ColumnarReport,
    responses=refusals("analysis_not_found", "blob_not_found", "no_report", "not_acceptable")
    | {
        200: {
            "content": {
                "text/markdown": {"schema": {"type": "string"}},
                "text/html": {"schema": {"type": "string"}},
                "application/sarif+json": {"schema": {"type": "object"}},
                "application/xml": {"schema": {"type": "string"}},
                "text/plain": {"schema": {"type": "string"}},
            }
        }
    },
)
async def get_report(
    request: Request,
    analysis_id: Id,
    here: Here,
    project: Project,
    wanted: Annotated[Format | None, Query(alias="format")] = None,
    layout: Layout = "rows",
    path: Annotated[
        str | None,
        Query(
            min_length=1,
            max_length=LONGEST_PATH,
            description="The model's path in its repository, which formats of pipelines tell; "
            "else its name.",
        ),
    ] = None,
    if_none_match: Annotated[str | None, Header(max_length=1000)] = None,
) -> Response:
    """Read a succeeded analysis's report, by `format` or else by `Accept`; JSON by default.

    A JSON report has its layers by column where `layout` asks for it. `sarif`, `junit`, `gitlab`
    (Code Quality) and `github` (annotations) are for pipelines, `model-explorer` is node data for
    that viewer.
    """
    form = wanted or negotiated(request.headers.get("accept"))
    key = await report_key(here, project, analysis_id)
    headers = {
        "ETag": tag(key, f"{form}:{layout}:{path}"),
        "Cache-Control": "private, no-cache",
        "Vary": "Accept",
        "Content-Security-Policy": _POLICY,
    }
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    stored = await asyncio.to_thread(completed_report, await here.blobs.get(key))
    content: bytes | str = stored
    if form != "json":
        content = await asyncio.to_thread(_rendered, stored, form, path)
    elif layout == "columnar":
        content = await asyncio.to_thread(_columnar, stored)
    return Response(content, media_type=TYPES[form], headers=headers)


def tag(key: str, form: str) -> str:
    """The entity tag of one form of a stored report."""
    return f'"{hashlib.sha256(f"{key}:{form}".encode()).hexdigest()[:32]}"'


def negotiated(accept: str | None) -> Format:
    """The format an Accept header likes best (RFC 9110 12.5.1), JSON among equals.

    Raises:
        Refused: none of ours is liked (406).
    """
    if not accept:
        return "json"
    liked = [_range(part) for part in accept[:1000].split(",")]
    marks = {
        form: _quality(kind, liked) for form, kind in TYPES.items() if form not in _UNNEGOTIATED
    }
    best = max(marks, key=lambda form: marks[form])
    if marks[best] <= 0:
        said = NotReadable(
            "not_acceptable",
            "a report is application/json, text/markdown, text/html or application/sarif+json",
            hint="ask with Accept, or with ?format= for a pipeline's",
        )
        raise Refused(said, 406)
    return best


def _range(part: str) -> tuple[str, float]:
    kind, *parameters = (word.strip().lower() for word in part.split(";"))
    told = next((word[2:] for word in parameters if word.startswith("q=")), "1")
    try:
        return kind, float(told)
    except ValueError:
        return kind, 0.0


def _quality(kind: str, liked: list[tuple[str, float]]) -> float:
    """The most specific range that covers `kind` decides."""
    given = dict(reversed(liked))
    for covering in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
        if covering in given:
            return given[covering]
    return 0.0


async def report_key(here: Services, project: str, analysis_id: str) -> str:
    """The blob of a succeeded analysis's report.

    Raises:
        NotFound: there is no such analysis.
        Conflict: it has no report.
    """
    async with here.database.autocommit() as session:
        row = await rows.get(session, project, analysis_id)
    if row.report_key is not None and row.state == "succeeded":
        return row.report_key
    hints = {
        "queued": "wait for its end: GET its events",
        "running": "wait for its end: GET its events",
        "failed": "read the analysis's `error`",
        "succeeded": "it applied a recommendation: read the model that its `application` names",
    }
    raise Conflict(
        "no_report",
        f"analysis {row.id} is {row.state} and has no report",
        hint=hints.get(row.state),
    )


def _columnar(content: bytes) -> bytes:
    report = json.loads(content)
    report["layers"] = columns(report["layers"])
    return json.dumps(report, allow_nan=False, separators=(",", ":")).encode()


def _rendered(content: bytes | str, form: Format, path: str | None) -> str:
    report = Report.model_validate_json(content)
    if path is not None and form in OF_MANY:
        return render_all([report], [path], form)
    return render(report, form)
