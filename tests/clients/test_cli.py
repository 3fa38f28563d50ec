"""The command: what it prints where, and by which code it exits; the engine is a stand-in."""

import io
import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from gradgauge.formats.render import render, render_all
from gradgauge.schema.report import Coverage, Finding, Report
from gradgauge.verdict.files import judge_by
from gradgauge.verdict.gate import decide
from gradgauge.verdict.policy import Policy
from gradgauge_client import _engine, _exit, _gate, _local, _output, cli, table
from tests import reports

PROBLEM = {
    "code": "not_a_model",
    "message": "not a protobuf message",
    "where": "byte 7",
    "op": None,
    "limit": None,
    "hint": "export it again",
}


def verdict(name, *findings):
    """A report the engine might give with that verdict."""
    report = reports.report(findings=list(findings))
    report["summary"]["verdict"] = name
    return {"report": report}


def problem(code):
    return {"problem": PROBLEM | {"exit": code}}


ANSWERS = {
    "pass.onnx": verdict("pass"),
    "warn.onnx": verdict("warn", reports.finding("medium")),
    "fail.onnx": verdict("fail", reports.finding("critical")),
    "unsure.onnx": verdict("inconclusive"),
    "bad.onnx": problem(2),
    "big.onnx": problem(5),
}


@pytest.fixture
def gradgauge(monkeypatch, tmp_path):
    """Runs the command in a folder that holds a file for each answer; `.seen` holds its calls."""
    seen = []

    def analyze(path, options, *, on_progress=None):
        seen.append((path, options))
        return ANSWERS[Path(path).name]

    engine = {"analyze": analyze, "render": render, "render_all": render_all}
    engine["judge_by"] = judge_by
    monkeypatch.setattr(_engine, "load", engine.__getitem__)
    monkeypatch.chdir(tmp_path)
    for name in ANSWERS:
        (tmp_path / name).touch()
    (tmp_path / "odd.yaml").write_text("failon: high")

    def run(*words):
        return CliRunner().invoke(cli.app, words)

    run.seen = seen
    return run


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("pass.onnx", 0),
        ("warn.onnx", 0),
        ("fail.onnx", 1),
        ("bad.onnx", 2),
        ("unsure.onnx", 3),
        ("big.onnx", 5),
        ("pass.onnx unsure.onnx", 3),
        ("unsure.onnx fail.onnx", 1),
        ("fail.onnx big.onnx", 5),
        ("big.onnx bad.onnx fail.onnx", 2),
        ("fail.onnx --fail-on never", 0),
        ("unsure.onnx --fail-on never", 3),
        ("big.onnx --fail-on never", 5),
        ("warn.onnx --fail-on medium", 1),
        ("warn.onnx --fail-on critical", 0),
        ("big.onnx --on-error pass", 0),
        ("bad.onnx --on-error pass", 2),
        ("fail.onnx big.onnx --on-error pass", 1),
    ],
)
def test_the_exit_code_is_the_documented_one(gradgauge, words, code):
    assert gradgauge("check", "--local", *words.split()).exit_code == code


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("check pass.onnx", "--local"),
        ("check --local", "MODEL_OR_SPEC"),
        ("check --local missing.onnx", "missing.onnx"),
        ("check --local pass.onnx --policy none.yaml", "none.yaml"),
        ("check --local pass.onnx --policy bad.onnx --new-only", "--baseline"),
        ("check --local pass.onnx --policy odd.yaml", "did you mean 'fail_on'"),
        ("check --local pass.onnx --baseline bad.onnx", "not a report"),
        ("check --local .", "directory"),
        ("check --local pass.onnx --bogus", "--bogus"),
        ("check --local pass.onnx --fail-on sometimes", "sometimes"),
        ("check --local pass.onnx --min-coverage 1.5", "between 0 and 1"),
        ("check --local pass.onnx --min-coverage nan", "between 0 and 1"),
        ("check --local pass.onnx --optimizer adam --lr 0", "positive"),
        ("check --local pass.onnx --optimizer adam --lr nan", "positive"),
        ("check --local pass.onnx --lr 0.1", "--optimizer"),
        ("check --local pass.onnx --seed -1", "--seed"),
        ("check --local pass.onnx --data none.npz", "none.npz"),
        (
            "check --local pass.onnx --format pdf",
            "table, json, markdown, html, sarif, junit, gitlab, github, model-explorer",
        ),
        ("check --local pass.onnx --format json --format table", "standard output"),
        ("check --local pass.onnx --format json --format html -o x", "go to x"),
        ("check --local pass.onnx --format json:no/where.json", "no/where.json"),
        ("check --local pass.onnx -o .", "is a folder"),
        (f"check --local pass.onnx -o {'x' * 300}", "File name too long"),
        ("check --local pass.onnx warn.onnx --format html:x.html", "one by one"),
        ("inspect", "inspect"),
        ("check --local --url http://x pass.onnx", "exclude"),
    ],
)
def test_wrong_usage_exits_2_and_says_what_is_wrong(gradgauge, words, why):
    result = gradgauge(*words.split())
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())
    assert result.stdout == ""
    assert gradgauge.seen == []


def test_a_problem_is_told_on_the_error_stream_with_its_way_out(gradgauge):
    result = gradgauge("check", "--local", "bad.onnx")
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: bad.onnx: not a protobuf message",
        "  code: not_a_model",
        "  where: byte 7",
        "  hint: export it again",
    ]


def test_a_finding_is_one_line_with_origin_effect_and_measured_remedy(gradgauge):
    lines = gradgauge("check", "--local", "fail.onnx").stdout.splitlines()
    assert lines[0] == "FAIL  deep-sigmoid.onnx  score 23/100"
    assert lines[1] == "Gradient vanishes 9.8 decades from loss to input: 18 sigmoid layers"
    (row,) = [line for line in lines if "GF101" in line]
    assert row.split("  ")[0].strip() == "critical"
    for told in (
        "/fc.18/Gemm",
        "gradient vanishes in 18 layers",
        "R1 Replace Sigmoid with GELU",
        "spread 9.8 -> 0.62 decades",
    ):
        assert told in row
    assert "coverage: 100.0% of 826,378 parameters; engines agree on 95% of layers" in lines
    assert lines[-1] == "gate default@1: not passed, 1 critical at or above high"


@pytest.mark.parametrize("status", ["refuted", "not_run", "not_verifiable"])
def test_a_remedy_that_was_not_proven_shows_no_effect(status):
    shown = table._remedy(reports.finding(), {"R1": reports.recommendation(verification=status)})
    assert "0.62" not in shown
    assert table.UNPROVEN[status] in shown


def test_options_reach_the_engine_only_where_they_were_given(gradgauge, tmp_path):
    (tmp_path / "batch.npz").touch()
    gradgauge("check", "--local", "pass.onnx")
    words = "--profile quick --data batch.npz --optimizer sgd --lr 0.1 --seed 7"
    words += " --reinitialize --min-coverage 0.5"
    gradgauge("check", "--local", "pass.onnx", *words.split())
    assert [options for _, options in gradgauge.seen] == [
        {},
        {
            "profile": "quick",
            "data": str(tmp_path / "batch.npz"),
            "optimizer": "sgd",
            "lr": 0.1,
            "seed": 7,
            "reinitialize": True,
            "min_coverage": 0.5,
        },
    ]


def test_json_on_standard_output_is_the_report_and_nothing_else(gradgauge):
    result = gradgauge("check", "--local", "fail.onnx", "--format", "json", "-o", "-")
    assert json.loads(result.stdout) == ANSWERS["fail.onnx"]["report"]
    assert result.stderr == ""


def test_json_of_several_inputs_is_a_list_of_those_that_were_analysed(gradgauge):
    result = gradgauge("check", "--local", "pass.onnx", "bad.onnx", "fail.onnx", "--format", "json")
    told = [report["summary"]["verdict"] for report in json.loads(result.stdout)]
    assert told == ["pass", "fail"]


def test_each_format_goes_where_it_was_sent(gradgauge, tmp_path):
    words = "--format json:a.json --format html:a.html --format markdown:a.md --format table"
    result = gradgauge("check", "--local", "fail.onnx", *words.split())
    assert result.stdout.startswith("FAIL  deep-sigmoid.onnx")
    assert json.loads((tmp_path / "a.json").read_text())["object"] == "report"
    assert (tmp_path / "a.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "a.md").read_text().startswith("## ❌ FAIL")


def test_a_file_that_cannot_be_written_is_said_without_a_traceback(gradgauge):
    result = gradgauge("check", "--local", "pass.onnx", "--format", "json:/dev/full")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
    assert "Traceback" not in result.output


def test_another_threshold_rewrites_the_gate_in_the_output(gradgauge):
    words = ("check", "--local", "fail.onnx", "--fail-on", "never", "--format", "json")
    told = Report.model_validate_json(gradgauge(*words).stdout)
    assert (told.gate.passed, told.gate.fail_on, told.gate.violating_findings) == (
        True,
        "never",
        [],
    )
    assert told.summary.verdict == "warn"


@pytest.mark.parametrize("fail_on", ["low", "medium", "high", "critical", "never"])
@pytest.mark.parametrize("severity", ["none", "low", "medium", "high", "critical"])
@pytest.mark.parametrize("status", ["new", "suppressed"])
@pytest.mark.parametrize("covered", [100, 50])
def test_the_client_decides_as_the_service_would_have(fail_on, severity, status, covered):
    coverage = reports.report()["coverage"] | {"params_total": 100, "params_covered": covered}
    finding = reports.finding(severity, status=status)

    def judged(policy):
        known = [Finding.model_validate(finding)]
        return decide(known, Coverage.model_validate(coverage), [], policy)

    first, gate = judged(Policy())
    report = reports.report(findings=[finding], coverage=coverage, gate=gate.model_dump())
    report["summary"]["verdict"] = first
    again = _gate.regate(report, fail_on)
    expected, expected_gate = judged(Policy(fail_on=fail_on))
    assert again["summary"]["verdict"] == expected
    for field in ("passed", "violating_findings", "fail_on"):
        assert again["gate"][field] == getattr(expected_gate, field)


def test_an_inconclusive_report_without_a_gate_stays_inconclusive():
    report = reports.report(findings=[], gate=None)
    report["summary"]["verdict"] = "inconclusive"
    assert _gate.regate(report, "high")["summary"]["verdict"] == "inconclusive"


def test_a_policy_suppresses_with_its_reason_and_the_exit_code_follows(gradgauge, tmp_path):
    mine = reports.finding()["fingerprint"]
    entry = f"{{fingerprint: {mine}, reason: it is meant, expires: 2999-12-31}}"
    (tmp_path / "p.yaml").write_text(f"name: ours\nallow: [{entry}]")
    result = gradgauge("check", "--local", "fail.onnx", "--policy", "p.yaml")
    assert result.exit_code == 0
    assert "suppressed: it is meant (until 2999-12-31)" in result.stdout
    assert "gate ours@1: passed, 1 suppressed; no finding" in result.stdout
    (tmp_path / "p.yaml").write_text(f"allow: [{entry.replace('2999', '2001')}]")
    result = gradgauge("check", "--local", "fail.onnx", "--policy", "p.yaml")
    assert result.exit_code == 1
    assert "expired on 2001-12-31: it is meant" in result.stdout


def test_a_baseline_lets_what_was_known_pass_where_only_new_findings_count(gradgauge):
    gradgauge("check", "--local", "fail.onnx", "--format", "json:base.json")
    words = ("check", "--local", "fail.onnx", "--baseline", "base.json")
    assert gradgauge(*words).exit_code == 1
    result = gradgauge(*words, "--new-only", "--format", "json")
    told = Report.model_validate_json(result.stdout)
    assert result.exit_code == 0
    assert (told.findings[0].status, told.compared_to) == ("existing", "rep_1")


def test_policies_need_the_service_package_or_a_service(monkeypatch, tmp_path):
    for name in ("m.onnx", "p.yaml"):
        (tmp_path / name).touch()
    monkeypatch.setattr(_engine, "entry_points", lambda **_: [])
    words = ("check", "--local", str(tmp_path / "m.onnx"))
    result = CliRunner().invoke(cli.app, [*words, "--policy", str(tmp_path / "p.yaml")])
    assert result.exit_code == 2
    assert 'pip install "gradgauge[worker]"' in " ".join(result.stderr.split())


def hostile_report():
    report = reports.report(depth=20)
    for block in (report["model"], *report["layers"]):
        block["name"] += reports.HOSTILE
    for block in (report["findings"][0], report["recommendations"][0]):
        block["title"] += reports.HOSTILE
    report["warnings"][0]["message"] += reports.HOSTILE
    report["summary"]["headline"] += reports.HOSTILE + "[bold]:smile:[/bold]"
    return report


def test_hostile_names_cannot_steer_a_terminal(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=120, color_system=None)
    table.show(hostile_report(), console)
    text = page.getvalue()
    assert not [c for c in text if c != "\n" and table.printable(c) != c]
    assert "[bold]:smile:[/bold]" in text


@pytest.mark.parametrize("no_color", [True, False])
def test_colour_is_for_terminals_and_NO_COLOR_turns_it_off(monkeypatch, no_color):  # noqa: N802
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    page = io.StringIO()
    page.isatty = lambda: True
    _output._tables([reports.report()], page)
    assert ("\x1b[1;31m" in page.getvalue()) is not no_color
    pipe = io.StringIO()
    _output._tables([reports.report()], pipe)
    assert "\x1b" not in pipe.getvalue()


def test_a_pipelines_format_is_one_text_of_all_models_by_their_paths(gradgauge, tmp_path):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "fail.onnx").touch()
    words = "fail.onnx nets/fail.onnx --format sarif:a.sarif --format gitlab:b.json"
    assert gradgauge("check", "--local", *words.split()).exit_code == 1
    (run,) = json.loads((tmp_path / "a.sarif").read_text())["runs"]
    assert [each["location"]["uri"] for each in run["artifacts"]] == ["fail.onnx", "nets/fail.onnx"]
    assert len(json.loads((tmp_path / "b.json").read_text())) == 2


def test_a_model_outside_of_the_working_folder_goes_by_its_name(monkeypatch, tmp_path):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert _output._in_repository(tmp_path / "m.onnx") == "m.onnx"
    assert _output._in_repository(Path("a") / "m.onnx") == "a/m.onnx"


def test_an_interrupt_exits_130(gradgauge, monkeypatch):
    def interrupted(path, options, *, on_progress=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(_engine, "load", lambda name: interrupted)
    result = gradgauge("check", "--local", "pass.onnx")
    assert result.exit_code == 130
    assert "Traceback" not in result.output


def test_without_the_service_package_it_says_what_to_install(monkeypatch, tmp_path):
    (tmp_path / "m.onnx").touch()
    monkeypatch.setattr(_engine, "entry_points", lambda **_: [])
    result = CliRunner().invoke(cli.app, ["check", "--local", str(tmp_path / "m.onnx")])
    assert result.exit_code == 2
    assert 'pip install "gradgauge[worker]"' in " ".join(result.stderr.split())


def test_an_engine_that_cannot_be_imported_says_what_to_install(monkeypatch):
    broken = EntryPoint("analyze", "no_such_module_here:f", _engine.GROUP)
    monkeypatch.setattr(_engine, "entry_points", lambda **_: [broken])
    with pytest.raises(_engine.EngineMissing, match="no_such_module_here"):
        _engine.load("analyze")


def test_the_service_offers_its_renderer_under_the_name_the_client_asks_for(monkeypatch):
    offered = EntryPoint("render", "gradgauge.formats.render:render", _engine.GROUP)
    monkeypatch.setattr(_engine, "entry_points", lambda **_: [offered])
    assert _engine.load("render") is render


def test_the_version_is_one_line():
    result = CliRunner().invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.stdout.startswith("gradgauge")
    assert result.stdout.count("\n") == 1


def test_the_worst_code_follows_the_documented_order():
    order = [2, 4, 5, 1, 3, 0]
    assert [_exit.worst(order[i:]) for i in range(6)] == order
    assert _exit.worst([]) == 0


def test_the_command_loads_neither_the_service_nor_a_framework():
    code = (
        "import sys, gradgauge_client.cli;"
        "print([m for m in ('gradgauge', 'torch', 'onnx', 'numpy') if m in sys.modules])"
    )
    path = os.pathsep.join(sys.path)
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == "[]"


def test_progress_is_told_on_a_terminal_and_not_in_a_log():
    def analyze(path, options, *, on_progress=None):
        told.append(on_progress)
        if on_progress:
            on_progress("sampled\x1b[2J", 0.4)
        return ANSWERS["pass.onnx"]

    told = []
    for terminal in (True, False):
        page = io.StringIO()
        console = Console(file=page, force_terminal=terminal, width=80, color_system=None)
        _local.check(Path("m.onnx"), {}, analyze, judge=None, console=console)
        assert ("m.onnx" in page.getvalue()) is terminal
        assert "\x1b[2J" not in page.getvalue()
    assert told[0] is not None
    assert told[1] is None


def test_the_installed_script_survives_a_terminal_that_lacks_a_character():
    code = (
        "from gradgauge_client import cli; import sys; sys.argv[1:] = ['check', 'é☃']; cli.main()"
    )
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 2
    assert "Traceback" not in told.stderr


def test_ops_that_were_not_analysed_are_named_in_the_table():
    report = reports.report()
    report["coverage"]["unsupported_ops"] = {"NonZero": 2}
    report["summary"]["agreement_fraction"] = None
    page = io.StringIO()
    _output._tables([report, report], page)
    assert page.getvalue().count("not analysed: NonZero") == 2
    assert "engines not compared" in page.getvalue()
