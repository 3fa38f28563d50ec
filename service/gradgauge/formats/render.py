"""Reports to text, by the name of a format."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gradgauge.errors import InvalidOptions
from gradgauge.formats.github import to_github
from gradgauge.formats.gitlab import to_gitlab
from gradgauge.formats.html import to_html
from gradgauge.formats.junit import to_junit
from gradgauge.formats.markdown import to_markdown
from gradgauge.formats.model_explorer import to_model_explorer
from gradgauge.formats.sarif import to_sarif
from gradgauge.formats.subject import Subject
from gradgauge.schema.report import Report


def to_json(report: Report) -> str:
    """The report as ASCII JSON, two spaces deep: whatever a name holds, no terminal obeys it."""
    return json.dumps(report.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {
    "html": to_html,
    "json": to_json,
    "markdown": to_markdown,
    "model-explorer": to_model_explorer,
}

OF_MANY: dict[str, Callable[[Sequence[Subject]], str]] = {
    "github": to_github,
    "gitlab": to_gitlab,
    "junit": to_junit,
    "sarif": to_sarif,
}
"""Formats of pipelines: one text of all models, each by its path in the repository."""


def render_all(
    reports: Sequence[Report | Mapping[str, Any]],
    paths: Sequence[str],
    format: str,  # noqa: A002 - the seam's word
) -> str:
    """`reports`, each of the model at its path, as one `sarif`, `junit`, `gitlab` or `github`.

    Raises:
        InvalidOptions: there is no such format.
        pydantic.ValidationError: a dict is not a report.
    """
    _refuse_unknown(format, OF_MANY)
    parsed = (r if isinstance(r, Report) else Report.model_validate(r) for r in reports)
    return OF_MANY[format]([Subject(*pair) for pair in zip(parsed, paths, strict=True)])


def render(report: Report | Mapping[str, Any], format: str) -> str:  # noqa: A002 - the seam's word
    """`report` (the model, or its JSON as a dict) in any format of one report.

    A format of pipelines tells of the model by its name instead of its path.

    Raises:
        InvalidOptions: there is no such format.
        pydantic.ValidationError: the dict is not a report.
    """
    _refuse_unknown(format, FORMATS | OF_MANY)
    parsed = report if isinstance(report, Report) else Report.model_validate(report)
    if format in OF_MANY:
        return OF_MANY[format]([Subject(parsed, parsed.model.name)])
    return FORMATS[format](parsed)


def _refuse_unknown(format: str, known: Mapping[str, Any]) -> None:  # noqa: A002 - the seam's word
    if format not in known:
        raise InvalidOptions(
            "unknown_format",
            f"there is no format {format!r}",
            hint=f"choose one of {', '.join(sorted(known))}",
        )
