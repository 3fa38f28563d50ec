"""`gradgauge check FILE --url U`: what a service's answers make of output and exit codes."""

import ast
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

import gradgauge
from gradgauge.formats.render import render
from gradgauge_client import _engine, _exit, _http, cli
from tests import reports
from tests.clients import fake_service
from tests.clients.fake_service import event, problem
from tests.clients.test_cli import ANSWERS

FAULTS = {
    "big.onnx": {"code": "limit_exceeded", "message": "too many nodes", "limit": "nodes=1"},
    "slow.onnx": {"code": "time_limit", "message": "too slow", "hint": "be patient"},
    "lacks.onnx": {"code": "unsupported_ops", "message": "no Foo", "op": "Foo", "where": "/f"},
}
EXITS = {"big.onnx": 5, "slow.onnx": 5, "lacks.onnx": 3}
FILES = ANSWERS | {
    name: {"problem": fake_service.FAULT | fault | {"exit": EXITS[name]}}
    for name, fault in FAULTS.items()
}
WORDS = [
    *FILES,
    "pass.onnx fail.onnx bad.onnx",
    "fail.onnx --fail-on never",
    "warn.onnx --fail-on medium",
    "unsure.onnx --fail-on never",
    "fail.onnx big.onnx --on-error pass",
    "fail.onnx --format json",
    "fail.onnx pass.onnx --format json -o -",
    "fail.onnx --format markdown",
    "fail.onnx --format html --fail-on critical",
]


@pytest.fixture
def service():
    with fake_service.running() as running:
        running.outcomes = dict(FILES)
        yield running


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A working folder that holds a file for each answer, and the engine that gives it."""

    def analyze(path, _options, *, on_progress=None):
        return FILES[Path(path).name]

    monkeypatch.setattr(_engine, "load", {"analyze": analyze, "render": render}.__getitem__)
    monkeypatch.setattr(_http, "_FIRST_PAUSE_S", 0.01)
    monkeypatch.delenv("GRADGAUGE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).write_text(name)
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli.app, ["check", *words])


@pytest.mark.parametrize("words", WORDS)
def test_a_service_gives_the_output_and_the_code_that_local_gives(service, folder, words):
    here = run("--local", *words.split())
    there = run("--url", service.url, *words.split())
    assert (there.exit_code, there.stdout, there.stderr) == (
        here.exit_code,
        here.stdout,
        here.stderr,
    )
    assert service.seen


@pytest.mark.parametrize("name", [n for n, a in FILES.items() if "problem" in a])
def test_a_model_rejected_at_upload_gives_what_local_gives(service, folder, name):
    service.outcomes[name] = {"rejected": FILES[name]["problem"]}
    here, there = run("--local", name), run("--url", service.url, name)
    assert (there.exit_code, there.output) == (here.exit_code, here.output)


def test_the_environment_may_name_the_service_and_local_wins(service, folder, monkeypatch):
    monkeypatch.setenv("GRADGAUGE_URL", service.url)
    assert run("--local", "pass.onnx").exit_code == 0
    assert not service.seen
    assert run("pass.onnx").exit_code == 0
    assert service.seen


def test_options_reach_the_service_only_where_they_were_given(service, folder):
    words = "--profile quick --optimizer sgd --lr 0.1 --seed 7 --min-coverage 0.5"
    run("--url", service.url, "pass.onnx")
    run("--url", service.url, "pass.onnx", *words.split())
    asked = [json.loads(s.body)["options"] for s in service.seen if s.path == "/v1/analyses"]
    assert asked == [
        {},
        {"profile": "quick", "optimizer": "sgd", "lr": 0.1, "seed": 7, "min_coverage": 0.5},
    ]


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (401, "GRADGAUGE_API_KEY"),
        (403, "ask for one"),
        (404, "--url"),
        (429, ""),
        (500, ""),
        (503, ""),
    ],
)
def test_a_service_that_does_not_let_us_exits_4_with_its_reason(service, folder, status, hint):
    service.script("POST /v1/models", *[problem(status, "no_entry", "not for you")] * 3)
    result = run("--url", service.url, "pass.onnx")
    assert result.exit_code == 4
    assert f"not for you ({status}, request req-1)" in result.stderr
    assert hint in result.stderr
    assert result.stdout == ""


def test_an_option_the_service_refuses_exits_2(service, folder):
    service.script(
        "POST /v1/analyses", problem(422, "invalid_options", "no such seed", node="seed")
    )
    result = run("--url", service.url, "pass.onnx", "--seed", "7")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[:3] == [
        "error: pass.onnx: no such seed",
        "  code: invalid_options",
        "  where: seed",
    ]


def test_nobody_there_exits_4_and_names_the_url(folder):
    result = run("--url", "http://127.0.0.1:9", "pass.onnx")
    assert result.exit_code == 4
    assert "cannot reach http://127.0.0.1:9" in result.stderr
    assert "code: service_unreachable" in result.stderr
    assert run("--url", "http://127.0.0.1:9", "pass.onnx", "--on-error", "pass").exit_code == 0


def test_something_else_at_the_url_exits_4(service, folder):
    page = fake_service.Answer(200, raw=b"<html>")
    service.script("POST /v1/analyses", page)
    result = run("--url", service.url, "pass.onnx")
    assert result.exit_code == 4
    assert "is this a gradgauge service?" in result.stderr


def test_patience_that_ends_exits_4_and_says_that_the_analysis_goes_on(service, folder):
    def silent(handler):
        service.gone.wait(5)
        handler.close_connection = True

    service.script("GET /v1/analyses/ana_1/events", *[silent] * 9)
    result = run("--url", service.url, "--timeout", "0.2", "pass.onnx")
    service.gone.set()
    assert result.exit_code == 4
    assert "analysis ana_1 did not end within 0.2 s" in result.stderr
    assert "it goes on at the service" in result.stderr


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--url http://x --local pass.onnx", "exclude"),
        ("pass.onnx", "--url"),
        ("--url nonsense pass.onnx", "not the URL of a service"),
        ("--url http://x --timeout 0 pass.onnx", "positive"),
    ],
)
def test_wrong_usage_exits_2_and_asks_no_service(folder, words, why):
    result = run(*words.split())
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())


def without_the_package(name):
    raise _engine.EngineMissing("not here")


def test_without_the_package_the_service_writes_the_page(service, folder, monkeypatch):
    monkeypatch.setattr(_engine, "load", without_the_package)
    result = run("--url", service.url, "fail.onnx", "--format", "html")
    assert result.stdout == f"<html of {ANSWERS['fail.onnx']['report']['id']}>"
    assert result.exit_code == 1


def test_a_gate_the_service_does_not_know_is_sent_along(service, folder, monkeypatch):
    monkeypatch.setattr(_engine, "load", without_the_package)
    service.script("POST /v1/reports:render", fake_service.Answer(raw=b"## it fails"))
    words = ("--url", service.url, "fail.onnx", "--fail-on", "low")
    result = run(*words, "--format", "markdown")
    assert (result.exit_code, result.stdout) == (1, "## it fails")
    asked = json.loads(service.seen[-1].body)
    assert asked["format"] == "markdown"
    assert asked["reports"][0]["gate"]["fail_on"] == "low"


def test_a_spec_is_sent_as_one(service, folder):
    (folder / "net.yaml").write_text("gradgauge: 1\n")
    run("--url", service.url, "net.yaml")
    assert ("POST", "/v1/architectures") in service.calls()
    assert ("POST", "/v1/models") not in service.calls()


def test_a_fifo_is_refused_and_not_waited_for(service, folder):
    os.mkfifo(folder / "pipe.onnx")
    result = run("--url", service.url, "pipe.onnx")
    assert result.exit_code == 2
    assert "not a regular file" in result.stderr


def test_an_interrupt_cancels_the_analysis_and_exits_130(service, folder):
    def keep_going(handler):
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(event(1, "ana_1", "running").encode())
        service.gone.wait(300)
        handler.close_connection = True

    service.script("GET /v1/analyses/ana_1/events", keep_going)
    # a test run in the background inherits an ignored SIGINT
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from gradgauge_client.cli import main; main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, "check", "--url", service.url, "pass.onnx"],
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        watching = ("GET", "/v1/analyses/ana_1/events")
        give_up = time.monotonic() + 120
        while watching not in service.calls() and time.monotonic() < give_up:
            time.sleep(0.02)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    finally:
        child.kill()
        service.gone.set()
    assert (child.returncode, out, b"Traceback" in err) == (130, b"", False)
    assert ("POST", "/v1/analyses/ana_1:cancel") in service.calls()


INVALID = {"InvalidInput", "InvalidModel", "InvalidSpec", "InvalidOptions", "refusal"}
BROKEN = {"LimitExceeded", "AnalysisFailed", "ZygoteLost"}
SOURCES = Path(gradgauge.__file__).parent


def raised_codes():
    """(who is called, the code it is called with) for every error the engine's sources make."""
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            first = node.args[0] if node.args else None
            if name in INVALID | BROKEN and isinstance(first, ast.Constant):
                yield name, first.value


def test_the_exit_code_of_every_fault_is_the_engines():
    seen = set(raised_codes())
    assert len(seen) > 60
    wrong = [
        (name, code)
        for name, code in seen
        if _exit.of_fault(code) != (_exit.INVALID if name in INVALID else _exit.ANALYSIS_FAILED)
    ]
    assert wrong == []
    assert _exit.of_fault(None) == _exit.ANALYSIS_FAILED
    assert reports.report()["summary"]["verdict"] in _exit.OF_VERDICT
