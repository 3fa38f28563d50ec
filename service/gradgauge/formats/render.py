"""A report to text, by the name of a format."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from gradgauge.errors import InvalidOptions
from gradgauge.formats.html import to_html
from gradgauge.formats.markdown import to_markdown
from gradgauge.schema.report import Report


def to_json(report: Report) -> str:
    """The report as ASCII JSON, two spaces deep: whatever a name holds, no terminal obeys it."""
    return json.dumps(report.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"


FORMATS: dict[str, Callable[[Report], str]] = {
    "html": to_html,
    "json": to_json,
    "markdown": to_markdown,
}


def render(report: Report | Mapping[str, Any], format: str) -> str:  # noqa: A002 - the seam's word
    """`report` (the model, or its JSON as a dict) as `json`, `markdown` or `html`.

    Raises:
        InvalidOptions: there is no such format.
        pydantic.ValidationError: the dict is not a report.
    """
    if format not in FORMATS:
        raise InvalidOptions(
            "unknown_format",
            f"there is no format {format!r}",
            hint=f"choose one of {', '.join(sorted(FORMATS))}",
        )
    parsed = report if isinstance(report, Report) else Report.model_validate(report)
    return FORMATS[format](parsed)
