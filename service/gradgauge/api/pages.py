"""Pages for people: the list of analyses with its upload form, one analysis, the API's contract."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from gradgauge.api import analyses, architectures, reference
from gradgauge.api.analyses import FINAL, AnalysisRequest, Existing
from gradgauge.api.deps import Cursor, Here, Id, Project, Services
from gradgauge.api.page_headers import HEADERS
from gradgauge.api.problems import status_of
from gradgauge.api.uploads import Upload, receive
from gradgauge.errors import GradgaugeError, ModelRejected
from gradgauge.formats.names import clean, display
from gradgauge.jobs import quotas, uploads
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.spec import DEFAULT_LIMITS
from gradgauge.store.repository import analyses as rows
from gradgauge.store.repository import architectures as specs

router = APIRouter(include_in_schema=False)

_HERE = Path(__file__).parent
_PAGE = 50
_SPEC_SUFFIXES = (".yaml", ".yml", ".json")
# What the engine does in each stage it tells of, in their order.
STAGES = {
    "read": "read and check the graph",
    "analytic": "propagate moments through it",
    "sampled": "run and differentiate it",
    "remedy": "apply fixes to a copy and measure again",
}


def _printable(value: Any) -> Any:
    return clean(value[:2000]) if type(value) is str else value


_environment = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    finalize=_printable,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters["name"] = display


def install(app: FastAPI) -> None:
    """Add the pages and what they load."""
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=_HERE / "static"), name="static")


@router.get("/")
async def overview(here: Here, project: Project, cursor: Cursor = None) -> HTMLResponse:
    """The form and the newest analyses."""
    return await _overview(here, project, before=cursor)


@router.post("/")
async def submit(request: Request, here: Here, project: Project) -> Response:
    """Take the form's file, ask for its analysis and show that; else the form with the reason."""
    try:
        upload = await receive(request, here, project)
        try:
            analysis_id = await _submitted(upload, here, project, request.state.request_id)
        finally:
            upload.received.discard()
    except GradgaugeError as error:
        return await _overview(here, project, error=error)
    return RedirectResponse(f"/analyses/{analysis_id}", status_code=303)


@router.get("/analyses/{analysis_id}")  # noqa: FAST003 - Existing takes it
async def one(analysis: Existing) -> HTMLResponse:
    """One analysis: its progress while it runs, its report or its error after."""
    return _page("analysis.html", analysis=analysis, final=analysis.state in FINAL, stages=STAGES)


@router.post("/analyses/{analysis_id}:cancel")
async def cancel(analysis_id: Id, here: Here, project: Project) -> Response:
    """Cancel an analysis and show what has become of it."""
    async with here.database.session() as session:
        await here.queue.cancel(session, project, analysis_id)
    return RedirectResponse(f"/analyses/{analysis_id}", status_code=303)


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The contract, to be read; as FastAPI's own page would, but from here alone."""
    contract = request.app.openapi()
    return _page(
        "docs.html",
        version=contract["info"]["version"],
        operations=reference.operations(contract),
        schemas=reference.schemas(contract),
    )


async def _overview(
    here: Services,
    project: str,
    *,
    before: str | None = None,
    error: GradgaugeError | None = None,
) -> HTMLResponse:
    async with here.database.autocommit() as session:
        found = await rows.page(session, project, limit=_PAGE + 1, before=before)
    return _page(
        "overview.html",
        status=status_of(error) if error else 200,
        analyses=[analyses.wire(row) for row in found[:_PAGE]],
        older=found[_PAGE - 1].id if len(found) > _PAGE else None,
        error=_reason(error),
        final=FINAL,
    )


def _reason(error: GradgaugeError | None) -> GradgaugeError | dict[str, Any] | None:
    """Return what the page says went wrong: of a rejected model, what its inspection found."""
    if isinstance(error, ModelRejected):
        return {"where": None, "hint": None, **error.problem}
    return error


async def _submitted(upload: Upload, here: Services, project: str, request_id: str) -> str:
    """Queue the analysis of an upload, which is a spec or a model by its name."""
    name = upload.name or "model.onnx"
    options = AnalysisOptions.model_validate({"profile": upload.fields.get("profile", "standard")})
    if name.lower().endswith(_SPEC_SUFFIXES):
        architecture = await _architecture(upload, here, project)
        asked = AnalysisRequest(architecture_id=architecture, options=options)
    else:
        row, _ = await uploads.accept(
            here.database,
            here.blobs,
            here.queue,
            project,
            name=name,
            received=upload.received,
            request_id=request_id,
        )
        asked = AnalysisRequest(model_id=row.id, options=options)
    submitted = await analyses.submit(here, project, asked, request_id=request_id)
    return submitted.analysis.id


async def _architecture(upload: Upload, here: Services, project: str) -> str:
    with upload.received.path.open("rb") as file:
        text = file.read(DEFAULT_LIMITS.max_bytes + 1)
    spec = architectures.checked(text, None)
    async with here.database.session() as session:
        stored = architectures.stored(spec)
        row, added = await specs.add(session, project, name=spec.name, spec=stored)
        if added:
            await quotas.kept(session, project, here.queue.usual)
        return row.id


def _page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    content = _environment.get_template(template).render(**values)
    return HTMLResponse(content, status_code=status, headers=HEADERS)
