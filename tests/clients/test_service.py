"""The client and the command against the real service: what a fake cannot prove."""

import json
import os
import signal
from importlib.metadata import EntryPoint
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

import gradgauge_client as gg
from gradgauge.formats.render import render
from gradgauge.worker.local import analyze
from gradgauge_client import Client, _engine, cli
from tests.clients.test_bundle import net, save
from tests.service import SLOW

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
# What two runs of one analysis may not share.
OWN = {"provenance", "id"}


@pytest.fixture
def client(real_service):
    with Client(real_service.url) as client:
        yield client


@pytest.fixture
def folder(tmp_path):
    """Inputs of every kind, good and bad."""
    save(net(), tmp_path / "external.onnx")
    onnx.save(net(), tmp_path / "whole.onnx")
    whole = (tmp_path / "whole.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.onnx").write_text("no model at all")
    (tmp_path / "empty.onnx").touch()
    for name, text in {
        "empty.yaml": "",
        "syntax.yaml": "layers: [",
        "wrong.yaml": "gradgauge: 1\ninput: {shape: [8]}\nlayers: [{type: dense, units: -1}]",
        "wrong.json": '{"gradgauge": 1, "layers": []}',
        "large.yaml": "# " + "x" * (4 << 20),
    }.items():
        (tmp_path / name).write_text(text)
    for example in ("deep-sigmoid.yaml", "relu-he.yaml", "pre-ln-transformer.onnx"):
        (tmp_path / example).symlink_to(EXAMPLES / example)
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli.app, ["check", "--profile", "quick", *words])


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(_engine, "load", {"analyze": analyze, "render": render}.__getitem__)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("deep-sigmoid.yaml", 1),
        ("relu-he.yaml", 0),
        ("pre-ln-transformer.onnx", 0),
        ("external.onnx", 0),
        ("cut.onnx", 2),
        ("text.onnx", 2),
        ("empty.onnx", 2),
        ("empty.yaml", 2),
        ("syntax.yaml", 2),
        ("wrong.yaml", 2),
        ("wrong.json", 2),
    ],
)
def test_the_service_gives_what_local_gives(real_service, folder, name, code):
    here = run("--local", str(folder / name))
    there = run("--url", real_service.url, str(folder / name))
    assert (there.exit_code, there.stdout, there.stderr) == (
        here.exit_code,
        here.stdout,
        here.stderr,
    )
    assert here.exit_code == code


def test_what_is_too_large_for_the_service_exits_as_what_is_too_large_here(real_service, folder):
    for place in (("--local",), ("--url", real_service.url)):
        result = run(*place, str(folder / "large.yaml"))
        assert result.exit_code == 5
        assert "1048576" in result.stderr


def test_the_reports_json_is_the_same_but_for_when_and_where(real_service, folder):
    words = (str(folder / "whole.onnx"), "--format", "json")
    here, there = (
        json.loads(run(*place, *words).stdout)
        for place in (("--local",), ("--url", real_service.url))
    )
    different = {key for key in here if here[key] != there[key]}
    assert different <= OWN | {"model"}
    assert {k for k in here["model"] if here["model"][k] != there["model"][k]} <= {"id"}


def test_check_returns_a_typed_report_and_tells_progress(client, folder):
    told = []
    report = client.check(
        folder / "deep-sigmoid.yaml",
        fail_on="never",
        on_progress=lambda stage, share: told.append((stage, share)),
        profile="quick",
        seed=11,
    )
    assert report.findings[0].rule_id == "GF101"
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[-1][1] == 1.0


def test_a_gate_raises_with_its_report(client, folder):
    with pytest.raises(gg.GateFailed) as told:
        client.check(folder / "deep-sigmoid.yaml", fail_on="high", profile="quick")
    assert told.value.report.summary.verdict == "fail"


def test_a_second_check_of_one_model_sends_and_analyses_nothing(client, folder):
    first = client.submit(folder / "whole.onnx", {"profile": "quick"}).wait(180)
    sent = []
    client.models.upload(folder / "whole.onnx", lambda *step: sent.append(step))
    again = client.submit(folder / "whole.onnx", {"profile": "quick"})
    assert (sent, again.cached, again.state) == ([], True, "succeeded")
    assert again.report() == first.report()


def test_wrong_options_name_the_option(client, folder):
    with pytest.raises(gg.UnprocessableEntityError, match="where: profile"):
        client.check(folder / "relu-he.yaml", profile="hasty")


def test_a_running_analysis_is_watched_and_cancelled(client, real_service):
    slow = client.analyses.retrieve(real_service.submit(SLOW))
    events = slow.events(timeout=180)
    assert next(events).state == "queued"
    assert next(events).state == "running"
    assert slow.cancel().state == "cancelled"
    assert [event.state for event in events][-1] == "cancelled"
    with pytest.raises(gg.AnalysisCancelled):
        slow.wait(60)


def test_patience_ends_before_a_long_analysis_does(client, real_service):
    slow = client.analyses.retrieve(real_service.submit(SLOW))
    with pytest.raises(gg.AnalysisTimeout):
        slow.wait(0.3)
    slow.cancel()


def test_a_wait_outlives_the_api_process_it_was_talking_to(client, real_service, folder):
    killed = []

    def kill_once(_stage, _share):
        if not killed:
            killed.append(real_service.part("api"))
            os.kill(killed[0], signal.SIGKILL)

    asked = client.submit(folder / "deep-sigmoid.yaml", {"profile": "quick", "seed": 12})
    assert asked.wait(180, kill_once).state == "succeeded"
    assert real_service.part("api") != killed[0]


def test_pages_of_a_list_join_without_gaps(client, real_service):
    made = [real_service.submit(seed=seed) for seed in range(3)]
    listed = [each.id for each in client.analyses.list(limit="2")]
    assert listed[:3] == made[::-1]
    assert len(listed) == len(set(listed))


def test_unknown_ids_are_typed(client):
    for asked in (client.analyses.retrieve, client.models.retrieve, client.architectures.retrieve):
        with pytest.raises(gg.NotFoundError) as told:
            asked("none_x")
        assert told.value.request_id


def test_a_page_is_written_by_the_service_where_the_package_is_missing(
    real_service, folder, monkeypatch
):
    def missing(_name):
        raise _engine.EngineMissing("not here")

    monkeypatch.setattr(_engine, "load", missing)
    words = ("--url", real_service.url, str(folder / "relu-he.yaml"), "--format", "html")
    assert run(*words).stdout.startswith("<!doctype html>")


def test_the_installed_entry_points_are_the_ones_the_client_asks_for():
    """As pyproject.toml declares them, whether or not this environment was installed since."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for name in ("serve", "worker", "migrate", "doctor", "export", "patch", "explain"):
        assert f'{name} = "gradgauge.cli:{name}"' in text
        assert EntryPoint(name, f"gradgauge.cli:{name}", "gradgauge.commands").load()
