"""`gradgauge diff`: what it prints of two kept reports, and by which code it ends."""

import json

import pytest

from gradgauge.cli.differ import diff
from tests import reports


@pytest.fixture
def kept(tmp_path):
    def write(name, *findings, **changes):
        path = tmp_path / name
        path.write_text(json.dumps(reports.report(findings=list(findings), **changes)))
        return str(path)

    return write


def finding(fingerprint, severity="critical", **changes):
    return reports.finding(severity, fingerprint=fingerprint, **changes)


def test_it_tells_what_is_new_what_stayed_and_what_went(kept, capsys):
    base, head = kept("a.json", finding("a"), finding("b")), kept("b.json", finding("b"))
    assert diff([base, head]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("score 23 -> 23")
    assert lines[1].split()[:3] == ["existing", "critical", "GF101"]
    assert lines[2].split()[:4] == ["-", "fixed", "critical", "GF101"]
    assert lines[2].endswith("[a]")
    assert "in 0 of 20 layers" in lines[3]
    assert lines[-1] == "gate of new findings: passed, no finding at or above high"


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
    assert diff([kept("a.json"), kept("b.json", finding("n", severity)), *flags]) == code


def test_what_a_policy_suppresses_does_not_fail(kept, tmp_path, capsys):
    policy = tmp_path / "p.yaml"
    policy.write_text("allow: [{fingerprint: n, reason: it is meant}]")
    base, head = kept("a.json"), kept("b.json", finding("n"))
    assert diff([base, head, "--policy", str(policy)]) == 0
    assert "(suppressed: it is meant)" in capsys.readouterr().out


def test_a_head_that_is_inconclusive_exits_3(kept):
    gate = reports.report()["gate"] | {"reason": "inconclusive: the forward pass differs"}
    assert diff([kept("a.json"), kept("b.json", gate=gate)]) == 3


def test_gradients_that_moved_are_listed_the_furthest_first(kept, capsys):
    moved = [reports.layer(i, sampled=reports.sampled(-0.3 * (20 - i) + i / 3)) for i in range(20)]
    assert diff([kept("a.json"), kept("b.json", layers=moved[:19])]) == 0
    out = capsys.readouterr().out
    assert "in 17 of 19 layers" in out
    assert out.index("/fc.18/Gemm: +5.95 decades") < out.index("/fc.17/Gemm")
    assert "and 7 more" in out
    assert "only in the first: 1 layer, /fc.19/Gemm" in out


def test_json_is_the_comparison_with_its_gate(kept, capsys):
    assert diff([kept("a.json"), kept("b.json", finding("n")), "--format", "json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [each["fingerprint"] for each in told["new"]] == ["n"]
    assert (told["verdict"], told["gate"]["violating_findings"]) == ("fail", ["F001"])


def test_hostile_names_are_made_safe(kept, capsys):
    head = kept("b.json", finding("n", title=reports.HOSTILE))
    diff([kept("a.json"), head])
    assert "\x1b" not in capsys.readouterr().out


def test_what_is_no_report_is_named_and_exits_2(kept, tmp_path, capsys):
    bad = tmp_path / "bad.json"
    bad.write_text("{}")
    assert diff([kept("a.json"), str(bad)]) == 2
    assert "bad.json: it is not a report" in capsys.readouterr().err
