"""SARIF, JUnit, GitLab and GitHub: what a pipeline reads of reports, hostile names and all."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from gradgauge.formats.render import OF_MANY, render, render_all
from gradgauge.formats.sarif import MOST_RESULTS
from tests import reports


def report(*findings, verdict="fail", **changes):
    told = reports.report(findings=list(findings), **changes)
    told["summary"]["verdict"] = verdict
    return told


def two(**changes):
    """A finding that fails the gate and one that does not."""
    low = reports.finding("low", id="F002", rule_id="GF302", fingerprint="b2", origins=[])
    return report(reports.finding(), low, **changes)


def inconclusive():
    gate = reports.report()["gate"] | {"violating_findings": [], "reason": "inconclusive: no ops"}
    return report(verdict="inconclusive", gate=gate)


# The schema of the OASIS standard, draft 4 of JSON Schema, closed: no property that is not in it.
SARIF = json.loads((Path(__file__).parent / "sarif-2.1.0-rtm.5.json").read_text(encoding="utf-8"))


def sarif(*told, paths=None):
    text = render_all(told, paths or [f"models/{i}.onnx" for i in range(len(told))], "sarif")
    log = json.loads(text)
    jsonschema.validate(log, SARIF, format_checker=jsonschema.FormatChecker())
    (run,) = log["runs"]
    return run


def test_a_sarif_result_has_file_line_node_fingerprint_and_rule():
    run = sarif(two())
    first, second = run["results"]
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == first["ruleId"] == "GF101"
    (place,) = first["locations"]
    assert place["physicalLocation"] == {
        "artifactLocation": {"uri": "models/0.onnx", "index": 0},
        "region": {"startLine": 1},
    }
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "/fc.18/Gemm"
    assert first["partialFingerprints"] == {"gradgauge/v1": "b1c0e8f27a4411aa"}
    assert (first["level"], second["level"]) == ("error", "note")
    assert "logicalLocations" not in second["locations"][0]
    assert "baselineState" not in first


def test_the_schema_refuses_what_the_standard_does_not_know():
    """Else nothing above would be tested by it."""
    log = json.loads(render_all([two()], ["m.onnx"], "sarif"))
    log["runs"][0]["results"][0]["severity"] = "high"
    with pytest.raises(jsonschema.ValidationError, match="severity"):
        jsonschema.validate(log, SARIF)


def test_sarif_tells_of_several_models_in_one_run():
    run = sarif(two(), two(), paths=["a b/x.onnx", "y.yaml"])
    uris = [artifact["location"]["uri"] for artifact in run["artifacts"]]
    assert uris == ["a%20b/x.onnx", "y.yaml"]
    for result in run["results"]:
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert place["uri"] == uris[place["index"]]


def test_sarif_carries_suppressions_and_the_state_against_a_baseline():
    found = [
        reports.finding(id="F001", status="suppressed", suppression="it is meant"),
        *(
            reports.finding(id=f"F{i}", status=s)
            for i, s in enumerate(("new", "existing", "fixed"))
        ),
    ]
    results = sarif(report(*found, compared_to="rep_0"))["results"]
    states = [result.get("baselineState") for result in results]
    assert sorted(map(str, states)) == ["None", "absent", "new", "unchanged"]
    (held,) = [result["suppressions"] for result in results if "suppressions" in result]
    assert held[0]["justification"] == "it is meant"


def test_sarif_says_what_is_inconclusive_and_what_was_left_out(monkeypatch):
    (invocation,) = sarif(inconclusive())["invocations"]
    (notice,) = invocation["toolExecutionNotifications"]
    assert notice["message"]["text"] == "inconclusive: no ops"
    assert MOST_RESULTS == 5000
    monkeypatch.setattr("gradgauge.formats.sarif.MOST_RESULTS", 5)
    many = [reports.finding("low", id=f"F{i}") for i in range(5)]
    run = sarif(report(*many, reports.finding("critical", id="F9")))
    assert len(run["results"]) == 5
    assert run["results"][0]["level"] == "error"
    (notice,) = run["invocations"][0]["toolExecutionNotifications"]
    assert notice["message"]["text"] == "1 results are left out"


def test_sarif_messages_hold_no_link_and_no_placeholder():
    finding = reports.finding(title="[x](http://y)", message="{0} of it")
    text = sarif(report(finding))["results"][0]["message"]["text"]
    assert text == r"\[x\](http://y): {{0}} of it"


def junit(*told):
    text = render_all(told, [f"{i}.onnx" for i in range(len(told))], "junit")
    return ET.fromstring(text)


def test_junit_fails_exactly_the_rules_that_fail_the_gate():
    root = junit(two(), inconclusive())
    first, second = root.findall("testsuite")
    failed = [
        case.get("name") for case in first.iter("testcase") if case.find("failure") is not None
    ]
    assert failed == ["GF101 Vanishing"]
    assert [case.get("name") for case in first if case.find("skipped") is not None] == [
        "GF220 Entropy"
    ]
    assert second.find("testcase/error").get("message") == "inconclusive: no ops"
    assert first.find("testcase/error") is None
    for suite in (first, second):
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases) == 4
        for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(key)) == len(suite.findall(f"testcase/{tag}"))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("8", "1", "1")


def test_junit_tells_what_is_suppressed_without_failing():
    gate = reports.report()["gate"] | {"violating_findings": []}
    held = reports.finding(status="suppressed", suppression="it is meant")
    suite = junit(report(held, verdict="pass", gate=gate)).find("testsuite")
    assert suite.get("failures") == "0"
    assert "it is meant" in suite.find("testcase/system-out").text


def test_gitlab_issues_have_the_fields_it_asks_for_and_fingerprints_of_their_own():
    twins = [reports.finding("medium", id=f"F{i}") for i in range(2)]
    told = [report(*twins), report(*twins), inconclusive()]
    issues = json.loads(render_all(told, ["a.onnx", "b.onnx", "c.onnx"], "gitlab"))
    assert len({issue["fingerprint"] for issue in issues}) == len(issues) == 5
    for issue in issues:
        assert set(issue) == {"description", "check_name", "fingerprint", "severity", "location"}
        assert issue["severity"] in {"info", "minor", "major", "critical", "blocker"}
        assert issue["location"]["lines"] == {"begin": 1}
    assert [issue["location"]["path"] for issue in issues][::2] == ["a.onnx", "b.onnx", "c.onnx"]
    assert issues[-1]["check_name"] == "inconclusive"


def test_gitlab_leaves_out_what_does_not_count():
    found = [reports.finding(status=status) for status in ("suppressed", "fixed")]
    assert json.loads(render_all([report(*found)], ["a.onnx"], "gitlab")) == []


def test_github_annotates_by_what_a_finding_does_to_the_gate():
    lines = render_all([two()], ["a,b:c.onnx"], "github").splitlines()
    assert [line.split()[0] for line in lines] == ["::error", "::notice", "::notice"]
    assert lines[0].startswith("::error file=a%2Cb%3Ac.onnx,line=1,title=GF101 Vanishing")
    assert lines[0].endswith("(starts at /fc.18/Gemm)")
    (gate,) = [line for line in lines if "gate default@1" in line]
    assert gate.endswith("::not passed: 1 critical at or above high")


@pytest.mark.parametrize("form", sorted(OF_MANY))
def test_hostile_names_stay_text(form):
    told = reports.report()
    for block in (told["model"], *told["layers"], *told["checks"]):
        block["name" if "name" in block else "title"] += reports.HOSTILE
    told["findings"][0]["message"] += reports.HOSTILE + "\n::error::planted"
    text = render_all([told], [f"x{reports.HOSTILE}"], form)
    assert "\x1b" not in text
    assert "\u202e" not in text
    if form == "github":
        assert all(re.match("::(error|notice)", line) for line in text.splitlines())
        assert not any(line.startswith("::error::planted") for line in text.splitlines())
    elif form == "junit":
        assert ET.fromstring(text).find(".//img") is None
    else:
        json.loads(text)


@pytest.mark.parametrize("form", sorted(OF_MANY))
def test_without_a_path_the_models_name_stands_for_it(form):
    assert render(two(), form) == render_all([two()], ["deep-sigmoid.onnx"], form)
