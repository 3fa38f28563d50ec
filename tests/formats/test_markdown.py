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


def told(**changes):
    """A report of two findings, the first one with six recommendations, of which two are shared."""
    held = [
        reports.recommendation(
            id=f"R{i}", rank=i, title=f"Remedy number {i}", verification=outcome, **changes
        )
        for i, outcome in enumerate(
            ("verified", "verified", "refuted", "verified", "verified", "not_run"), 1
        )
    ]
    ids = [one["id"] for one in held]
    findings = [
        reports.finding(id="F001", recommendation_ids=ids),
        reports.finding("medium", id="F002", recommendation_ids=ids[:2]),
    ]
    return reports.report(findings=findings, recommendations=held)


@pytest.mark.parametrize("format_", ["markdown", "html"])
def test_the_best_three_are_told_in_full_and_the_others_in_a_line(format_):
    text = render(told(), format_)
    first = text[: text.index("Tried besides")]
    for number in (1, 2, 4):
        assert f"R{number}: Remedy number {number}" in first
    for number in (3, 5, 6):
        assert f"Remedy number {number}" not in first
    assert "R3" in text
    assert "tried on a copy, did not help" in text
    assert "/fc.18/Gemm" in first


def test_each_is_told_where_why_at_what_cost_and_with_what_effect_and_once():
    text = render(told(), "markdown")
    part = text[text.index("**R1: ") :].partition("**R2")[0].splitlines()
    assert [line for line in part if line] == [
        "**R1: Remedy number 1**",
        "- where: `/fc.18/Gemm`",
        "- why it works: The sigmoid's slope is at most 0.25.",
        (
            "- what it costs: a change in the network's code, and training anew; the network's "
            "function changes; the output's distribution changes"
        ),
        "- what it does: measured on a patched copy: spread 9.8 → 0.62 decades (0.55 to 0.7)",
    ]
    assert text.count("why it works") == 3
    assert text.count("As told above.") == 2


def test_a_share_is_told_in_percent_under_its_own_name():
    effect = {
        "metric": "summary.probability_untrainable.sgd.p",
        "before": 0.978,
        "after": 0.0862,
        "unit": "1",
        "ci_after": None,
    }
    text = render(told(verified=[effect]), "markdown")
    assert "probability of failing under SGD 97.8% → 8.62%" in text


@pytest.mark.parametrize("format_", ["markdown", "html"])
@pytest.mark.parametrize(("confidence", "doubted"), [(0.9, False), (0.2, True)])
def test_how_probable_failure_is_and_whether_to_rely_on_it_is_told(format_, confidence, doubted):
    found = {"low": 0.9, "high": 0.98, "lr": None, "calibration": "t-1", "base_rate": 0.3}
    held = {name: found | {"p": 0.95, "confidence": confidence} for name in ("sgd", "adam")}
    held["adam"]["lr"] = 0.002
    report = reports.report()
    assert "Probability" not in render(report, format_)
    report["summary"]["probability_untrainable"] = held
    text = render(report, format_)
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
