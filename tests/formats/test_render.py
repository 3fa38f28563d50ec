"""One door to all formats."""

import json

import pytest
from pydantic import ValidationError

from gradgauge.errors import InvalidOptions
from gradgauge.formats.render import FORMATS, OF_MANY, render, render_all
from gradgauge.schema.report import Report
from tests import reports


@pytest.mark.parametrize("form", sorted(FORMATS | OF_MANY))
def test_a_dict_and_a_model_render_alike(form):
    report = reports.report()
    assert render(report, form) == render(Report.model_validate(report), form)


def test_json_is_the_whole_report_in_plain_ascii():
    report = reports.report()
    report["model"]["name"] = reports.HOSTILE
    text = render(report, "json")
    assert text.isascii()
    assert "\x1b" not in text
    assert Report.model_validate_json(text) == Report.model_validate(report)
    assert json.loads(text)["model"]["name"] == reports.HOSTILE


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(
        InvalidOptions, match="github, gitlab, html, json, junit, markdown, model-explorer, sarif"
    ):
        render(reports.report(), "pdf")


def test_only_formats_of_pipelines_take_many_reports():
    with pytest.raises(InvalidOptions, match="github, gitlab, junit, sarif"):
        render_all([reports.report()], ["a.onnx"], "html")


def test_what_is_not_a_report_is_refused():
    with pytest.raises(ValidationError):
        render({"schema_version": "1.0"}, "json")


@pytest.mark.parametrize("form", ["html", "markdown"])
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"status": "suppressed", "suppression": "it is meant"}, "suppressed: it is meant"),
        ({"suppression": "expired on 2026-02-28: old"}, "expired on 2026-02-28: old"),
        ({"status": "existing"}, "existing"),
    ],
)
def test_pages_tell_what_a_policy_or_a_baseline_makes_of_a_finding(form, changes, told):
    text = render(reports.report(findings=[reports.finding(**changes)]), form)
    assert told in text.replace("\\", "")
