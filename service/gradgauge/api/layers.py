"""The report's heavy parts apart: layers page by page, their graph, spectra and curves."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query
from starlette.responses import Response

from gradgauge.api.contract import refusals
from gradgauge.api.deps import Here, Id, Project, Services
from gradgauge.api.reports import Layout, report_key, tag
from gradgauge.schema.columns import Columns, columns
from gradgauge.schema.earlier import completed_report
from gradgauge.schema.layer import LayerBlock
from gradgauge.schema.report import SeriesBlock
from gradgauge.schema.wire import (
    Block,
    Category,
    Count,
    Fraction,
    MeasurementBlock,
    Positive,
    Severity,
    Text,
)

router = APIRouter(prefix="/v1/analyses", tags=["reports"])

_REFUSED = refusals("analysis_not_found", "blob_not_found", "no_report")
_Tag = Annotated[str | None, Header(max_length=1000)]


class LayerPage(Block):
    """A page of layers in the report's order; `next_cursor` is null on the last."""

    items: list[LayerBlock] | Columns
    next_cursor: Count | None


class GraphNode(Block):
    """A layer as a node of the graph, with what colours it."""

    id: Text
    name: Text
    scope: Text
    op: Text
    depth: Count
    repeat_group: Text | None
    score: Fraction
    severity: Severity
    role: Literal["origin", "affected", "none"]


class GraphEdge(Block):
    """`target` reads what `source` makes, directly or through nodes that only move it."""

    source: Text
    target: Text


class LayerGraph(Block):
    """The layers in topological order and which of them reads which."""

    nodes: list[GraphNode]
    edges: list[GraphEdge]


class LayerSpectrum(Block):
    """Singular values of one layer's weight."""

    id: Text
    name: Text
    sigma_max: Positive | None
    sigma_min: Positive | None
    stable_rank: Positive | None


class Spectra(Block):
    """What the report holds of spectra and curves; `layers` are those with a singular value."""

    layers: list[LayerSpectrum]
    series: list[SeriesBlock]
    measurements: list[MeasurementBlock]


@router.get("/{analysis_id}/layers", response_model=LayerPage, responses=_REFUSED)
async def list_layers(
    analysis_id: Id,
    here: Here,
    project: Project,
    limit: Annotated[int, Query(ge=1, le=2000, description="Layers of a page.")] = 200,
    cursor: Annotated[
        int, Query(ge=0, lt=1 << 31, description="The last page's `next_cursor`.")
    ] = 0,
    layout: Layout = "rows",
    severity: Annotated[Severity | None, Query()] = None,
    category: Annotated[Category | None, Query()] = None,
    role: Annotated[Literal["origin", "affected", "none"] | None, Query()] = None,
    op: Annotated[str | None, Query(max_length=255)] = None,
    if_none_match: _Tag = None,
) -> Response:
    """Read a report's layers page by page, those of a severity, category, role or op."""
    wanted = {"severity": severity, "category": category, "role": role}

    def page(report: Mapping[str, Any]) -> dict[str, Any]:
        found, more = _page(report["layers"], wanted, op, cursor, limit)
        return {"items": columns(found) if layout == "columnar" else found, "next_cursor": more}

    told = (limit, cursor, layout, op, *wanted.values())
    return await _part(here, project, analysis_id, if_none_match, f"layers:{told}", page)


@router.get("/{analysis_id}/graph", response_model=LayerGraph, responses=_REFUSED)
async def get_graph(
    analysis_id: Id, here: Here, project: Project, if_none_match: _Tag = None
) -> Response:
    """Read a report's layers as a graph: which layer reads which, and how far to worry of each."""
    return await _part(here, project, analysis_id, if_none_match, "graph", _graph)


@router.get("/{analysis_id}/spectra", response_model=Spectra, responses=_REFUSED)
async def get_spectra(
    analysis_id: Id, here: Here, project: Project, if_none_match: _Tag = None
) -> Response:
    """Read a report's singular values, its curves and its model-level measurements."""
    return await _part(here, project, analysis_id, if_none_match, "spectra", _spectra)


async def _part(
    here: Services,
    project: str,
    analysis_id: str,
    if_none_match: str | None,
    form: str,
    taken: Callable[[Mapping[str, Any]], Any],
) -> Response:
    key = await report_key(here, project, analysis_id)
    headers = {"ETag": tag(key, form), "Cache-Control": "private, no-cache"}
    if headers["ETag"] in (if_none_match or ""):
        return Response(status_code=304, headers=headers)
    content = await here.blobs.get(key)
    text = await asyncio.to_thread(_told, content, taken)
    return Response(text, media_type="application/json", headers=headers)


def _told(content: bytes, taken: Callable[[Mapping[str, Any]], Any]) -> bytes:
    report = json.loads(completed_report(content))
    return json.dumps(taken(report), allow_nan=False, separators=(",", ":")).encode()


def _page(
    layers: list[dict[str, Any]],
    wanted: Mapping[str, str | None],
    op: str | None,
    cursor: int,
    limit: int,
) -> tuple[list[dict[str, Any]], int | None]:
    """Layers from the place `cursor` on, and the place behind the last of them."""
    asked = {name: value for name, value in wanted.items() if value is not None}
    found: list[dict[str, Any]] = []
    for place in range(cursor, len(layers)):
        layer = layers[place]
        fits = all(layer["risk"][name] == value for name, value in asked.items())
        if fits and op in {None, layer["op"]}:
            if len(found) == limit:
                return found, place
            found.append(layer)
    return found, None


def _graph(report: Mapping[str, Any]) -> dict[str, Any]:
    own = ("id", "name", "scope", "op", "depth", "repeat_group")
    judged = ("score", "severity", "role")
    layers = report["layers"]
    return {
        "nodes": [
            {name: layer[name] for name in own} | {name: layer["risk"][name] for name in judged}
            for layer in layers
        ],
        "edges": [
            {"source": read, "target": layer["id"]} for layer in layers for read in layer["reads"]
        ],
    }


def _spectra(report: Mapping[str, Any]) -> dict[str, Any]:
    names = ("sigma_max", "sigma_min", "stable_rank")
    return {
        "layers": [
            {"id": layer["id"], "name": layer["name"]}
            | {name: layer["analytic"][name] for name in names}
            for layer in report["layers"]
            if any(layer["analytic"][name] is not None for name in names)
        ],
        "series": report["series"],
        "measurements": report["measurements"],
    }
