"""The pull request comment: what matters, within the limit, whatever the names hold."""

import pytest
from markdown_it import MarkdownIt

from gradgauge.formats.render import render
from tests import reports
from tests.reports import HOSTILE


def test_it_says_the_verdict_where_it_starts_and_what_the_remedy_did():
    text = render(reports.report(), "markdown")
    assert text.startswith("## ❌ FAIL: `deep-sigmoid.onnx` · score 23/100\n")
    row = next(line for line in text.splitlines() if line.startswith("| **critical**"))
    assert "`/fc.18/Gemm`" in row
    assert "gradient vanishes in 18 layers" in row
    assert "spread 9.8 → 0.62 decades (0.55 to 0.7)" in row


@pytest.mark.parametrize("format_", ["markdown", "html"])
@pytest.mark.parametrize(("confidence", "doubted"), [(0.9, False), (0.2, True)])
def test_how_probable_failure_is_and_whether_to_rely_on_it_is_told(format_, confidence, doubted):
    found = {"low": 0.9, "high": 0.98, "lr": None, "calibration": "t-1", "base_rate": 0.3}
    held = {name: found | {"p": 0.95, "confidence": confidence} for name in ("sgd", "adam")}
    held["adam"]["lr"] = 0.002
    told = reports.report()
    assert "Probability" not in render(told, format_)
    told["summary"]["probability_untrainable"] = held
    text = render(told, format_)
    assert "does not train: 95% under SGD at any usual learning rate (90 to 98%)" in text
    assert "95% under Adam at rate 0.002 (90 to 98%)" in text
    assert ("not to be relied on" in text) == doubted


@pytest.mark.parametrize("name", ["/block/Gemm", "é" * 90, HOSTILE])
def test_ten_thousand_layers_fit_and_what_was_left_out_is_said(name):
    layers = [reports.layer(i, name=name) for i in range(10_000)]
    text = render(reports.report(layers=layers), "markdown")
    assert 60_000 < len(text.encode()) <= 64_000
    assert text.endswith(
        "_Cut to fit a comment: the JSON and HTML formats hold the whole report._\n"
    )
    assert text.count("<details>") == text.count("</details>")


def test_ten_thousand_findings_fit_too():
    findings = [reports.finding(id=f"F{i}", message="m" * 500) for i in range(10_000)]
    text = render(reports.report(findings=findings), "markdown")
    assert len(text.encode()) <= 64_000
    assert "Cut to fit" in text


def test_a_report_that_fits_is_not_said_to_be_cut():
    assert "Cut to fit" not in render(reports.report(), "markdown")


def test_hostile_names_change_nothing_but_text():
    def shape(report):
        parser = MarkdownIt("commonmark").enable("table")
        inline = [c for t in parser.parse(render(report, "markdown")) for c in t.children or ()]
        return [c.type for c in inline if not c.type.startswith(("text", "softbreak"))]

    nasty = reports.report()
    nasty["model"]["name"] += HOSTILE
    nasty["summary"]["headline"] += HOSTILE
    for layer in nasty["layers"]:
        layer["name"] += HOSTILE
        layer["op"] += HOSTILE
    for block in (nasty["findings"][0], nasty["recommendations"][0], nasty["checks"][0]):
        block["title"] += HOSTILE
    nasty["warnings"][0]["message"] += HOSTILE
    assert shape(nasty) == shape(reports.report())


def test_a_clean_report_says_that_there_is_nothing():
    text = render(reports.report(findings=[], recommendations=[]), "markdown")
    assert "No findings." in text
