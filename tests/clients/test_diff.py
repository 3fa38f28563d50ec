"""`gradgauge diff`: what it prints of two kept reports, and by which code it ends."""

import json

import pytest
from typer.testing import CliRunner

from gradgauge.verdict.changes import compare_json
from gradgauge_client import _engine, cli
from tests import reports


@pytest.fixture(autouse=True)
def package(monkeypatch):
    monkeypatch.setattr(_engine, "load", {"compare": compare_json}.__getitem__)


def diff(*words):
    return CliRunner().invoke(cli.app, ["diff", *words])


@pytest.fixture
def kept(tmp_path):
    def write(name, *findings, **changes):
        path = tmp_path / name
        path.write_text(json.dumps(reports.report(findings=list(findings), **changes)))
        return str(path)

    return write


def finding(fingerprint, severity="critical", **changes):
    return reports.finding(severity, fingerprint=fingerprint, **changes)


def test_it_tells_what_is_new_what_stayed_and_what_went(kept):
    base, head = kept("a.json", finding("a"), finding("b")), kept("b.json", finding("b"))
    result = diff(base, head)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].endswith("score 23 -> 23")
    assert lines[1].split()[:3] == ["existing", "critical", "GF101"]
    assert lines[2].split()[:4] == ["-", "fixed", "critical", "GF101"]
    assert lines[2].endswith("[a]")
    assert "in 0 of 20 layers" in lines[3]
    told = "gate of new findings: passed, 1 known from rep_1; no finding at or above high"
    assert lines[-1] == told


@pytest.mark.parametrize(
    ("severity", "flags", "code"),
    [
        ("critical", [], 1),
        ("medium", [], 0),
        ("medium", ["--fail-on", "low"], 1),
        ("critical", ["--fail-on", "never"], 0),
    ],
)
def test_a_new_finding_fails_by_its_severity(kept, severity, flags, code):
    assert diff(kept("a.json"), kept("b.json", finding("n", severity)), *flags).exit_code == code


def test_what_a_policy_suppresses_does_not_fail(kept, tmp_path):
    policy = tmp_path / "p.yaml"
    policy.write_text("allow: [{fingerprint: n, reason: it is meant}]")
    base, head = kept("a.json"), kept("b.json", finding("n"))
    result = diff(base, head, "--policy", str(policy))
    assert result.exit_code == 0
    assert "(suppressed: it is meant)" in result.stdout


def test_a_head_that_is_inconclusive_exits_3(kept):
    gate = reports.report()["gate"] | {"reason": "inconclusive: the forward pass differs"}
    assert diff(kept("a.json"), kept("b.json", gate=gate)).exit_code == 3


def test_gradients_that_moved_are_listed_the_furthest_first(kept):
    moved = [reports.layer(i, sampled=reports.sampled(-0.3 * (20 - i) + i / 3)) for i in range(20)]
    result = diff(kept("a.json"), kept("b.json", layers=moved[:19]))
    assert result.exit_code == 0
    out = result.stdout
    assert "in 17 of 19 layers" in out
    assert out.index("/fc.18/Gemm: +5.95 decades") < out.index("/fc.17/Gemm")
    assert "and 7 more" in out
    assert "only in the first: 1 layer, /fc.19/Gemm" in out


def test_json_is_the_comparison_with_its_gate(kept):
    result = diff(kept("a.json"), kept("b.json", finding("n")), "--format", "json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert [each["fingerprint"] for each in told["new"]] == ["n"]
    assert (told["verdict"], told["gate"]["violating_findings"]) == ("fail", ["F001"])


def test_hostile_names_are_made_safe(kept):
    head = kept("b.json", finding("n", title=reports.HOSTILE))
    result = diff(kept("a.json"), head)
    assert "\x1b" not in result.stdout


def test_what_is_no_report_is_named_and_exits_2(kept, tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    result = diff(kept("a.json"), str(bad))
    assert result.exit_code == 2
    assert "bad.json: it is not a report" in result.stderr
    bad.write_text("[")
    told = " ".join(diff(str(bad), str(bad)).stderr.split())
    assert "which is JSON" in told
