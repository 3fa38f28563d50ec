"""A report in a notebook: the verdict and the findings, as HTML without script or style sheet."""

from collections.abc import Mapping
from html import escape

from gradgauge_client import _models
from gradgauge_client.table import LONGEST_NAME, LONGEST_TEXT, printable

_HEAD = ("severity", "rule", "finding", "starts at")


def shown(report: _models.Report) -> str:
    """HTML that any name in the model leaves whole."""
    told = report.summary
    score = "" if told.score is None else f", score {told.score:.0f}/100"
    title = f"{_text(report.model.name, LONGEST_NAME)}: {told.verdict.upper()}{score}"
    found = [finding for finding in report.findings if finding.status != "fixed"]
    names = {layer.id: layer.name for layer in report.layers}
    rows = "".join(_row(finding, names) for finding in found)
    head = "".join(f"<th>{each}</th>" for each in _HEAD)
    table = f"<table><tr>{head}</tr>{rows}</table>" if found else "<p>no findings</p>"
    headline = f"<p>{_text(told.headline, LONGEST_TEXT)}</p>"
    gate = f"<p>gate: {_text(report.gate.reason, LONGEST_TEXT)}</p>" if report.gate else ""
    return f"<div><strong>{title}</strong>{headline}{table}{gate}</div>"


def _row(finding: _models.Finding, names: Mapping[str, str]) -> str:
    origins = [_text(names.get(each, each), LONGEST_NAME) for each in finding.origins[:1]]
    more = f" (+{len(finding.origins) - 1} more)" if len(finding.origins) > 1 else ""
    cells = (finding.severity, finding.rule_id, _text(finding.title, LONGEST_TEXT))
    place = f"{''.join(origins)}{more}"
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, place)) + "</tr>"


def _text(text: str, longest: int) -> str:
    return escape(printable(text, longest))
