"""The fixture `gradient_report`, in runs of pytest of their own."""

import httpcore2  # noqa: F401 - a run inside this one forgets what it has loaded itself
import pytest

from gradgauge_client import _engine
from tests import reports
from tests.clients import fake_service

pytest_plugins = "pytester"

CHECK = """
def test_it(gradient_report):
    report = gradient_report("net.onnx", {})
    assert report.model.name == {!r}
"""
FAULT = {"message": "broken", "where": None, "op": None, "limit": None, "hint": None}


@pytest.fixture
def run(pytester, monkeypatch):
    monkeypatch.delenv("GRADGAUGE_URL", raising=False)
    (pytester.path / "net.onnx").write_bytes(b"\x08 content")

    def run(call, *words):
        pytester.makepyfile(CHECK.format(call, reports.report()["model"]["name"]))
        plugin = ("-p", "gradgauge_client.pytest_plugin", "-p", "no:cacheprovider")
        return pytester.runpytest_inprocess(*plugin, *words)

    return run


@pytest.fixture
def engine(monkeypatch):
    """A stand-in whose answers and calls are seen."""
    seen, answers = [], [{"report": reports.report()}]

    def analyze(path, options):
        seen.append((path, options))
        return answers[0]

    monkeypatch.setattr(_engine, "load", {"analyze": analyze}.__getitem__)
    return seen, answers


def test_the_engine_here_analyses_where_no_service_is_named(run, engine):
    seen, _ = engine
    run("fail_on='never', profile='quick'").assert_outcomes(passed=1)
    assert seen == [("net.onnx", {"profile": "quick"})]


def test_a_gate_that_fails_fails_the_test_with_its_reason(run, engine):
    result = run("profile='quick'")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*GateFailed*{reports.report()['gate']['reason']}*"])


def test_the_option_decides_where_the_test_does_not(run, engine):
    run("profile='quick'", "--gradgauge-fail-on=never").assert_outcomes(passed=1)
    run("fail_on='high'", "--gradgauge-fail-on=never").assert_outcomes(failed=1)


@pytest.mark.parametrize(
    ("code", "raised"),
    [("model_not_onnx", "UnprocessableModel"), ("memory_limit", "AnalysisFailed")],
)
def test_an_analysis_without_a_report_fails_the_test(run, engine, code, raised):
    engine[1][0] = {"problem": FAULT | {"code": code}}
    result = run("fail_on='never'")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{raised}: broken*"])


def test_without_an_engine_it_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr(_engine, "entry_points", lambda **_: [])
    result = run("fail_on='never'")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*GradgaugeError*pip install*"])


@pytest.mark.parametrize("named", ["option", "environment"])
def test_a_service_analyses_where_one_is_named(run, monkeypatch, named):
    with fake_service.running() as service:
        if named == "environment":
            monkeypatch.setenv("GRADGAUGE_URL", service.url)
        words = () if named == "environment" else (f"--gradgauge-url={service.url}",)
        run("fail_on='never', profile='quick'", *words).assert_outcomes(passed=1)
        assert ("POST", "/v1/analyses") in service.calls()
