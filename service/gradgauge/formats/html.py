"""A report as one HTML file: no script, no request, readable in ten years."""

import base64
import hashlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gradgauge.formats import words
from gradgauge.formats.chart import gradient_chart, series_chart
from gradgauge.formats.names import LONGEST_TEXT, clean, display
from gradgauge.schema.report import SEVERITIES, LayerBlock, Report

TEMPLATES = Path(__file__).with_name("templates")
MOST_LAYERS = 2000
MOST_CURVES = 12


def to_html(report: Report) -> str:
    """One self-contained page; layers beyond 2,000 and curves beyond 12 are counted, not shown."""
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    curves = [series_chart(each, i) for i, each in enumerate(report.series[:MOST_CURVES])]
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            style=Markup(style),  # noqa: S704 - our own file, nothing of the report's
            style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
            gradient=gradient_chart(report),
            curves=[curve for curve in curves if curve],
            most_curves=MOST_CURVES,
            layers=_shown(report.layers),
            by_id=words.layers_by_id(report),
            findings=words.worst_first(report.findings),
            words=words,
        )
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters["name"] = display
    return env


def _printable(value: Any) -> Any:
    """What every `{{ ... }}` passes through before it is escaped: no control character survives."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return clean(value[:LONGEST_TEXT], keep="\n")
    return value


def _shown(layers: list[LayerBlock]) -> list[LayerBlock]:
    """All layers, or of very many the worst, in order of depth either way."""
    worst = sorted(layers, key=lambda layer: -SEVERITIES.index(layer.risk.severity))
    return sorted(worst[:MOST_LAYERS], key=lambda layer: layer.depth)
