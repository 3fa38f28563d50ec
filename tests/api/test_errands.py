"""`gradgauge upload`, `report` and `patch --url` against a real service."""

import json

import onnx
import onnxruntime
import pytest
import yaml
from typer.testing import CliRunner

from gradgauge.cli.exporter import export
from gradgauge_client import _server, cli
from tests.api.test_recommendations import DEEP
from tests.faults.nets import net


def run(*words, env=None):
    return CliRunner().invoke(cli.app, [str(word) for word in words], env=env)


@pytest.fixture
def spec(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text(json.dumps(DEEP))
    return path


def test_an_uploaded_model_and_spec_are_told_by_their_ids(service, tmp_path, spec):
    path = tmp_path / "net.onnx"
    path.write_bytes(net(77))
    for file, kind, prefix in ((path, "models", "mdl_"), (spec, "architectures", "arc_")):
        told = run("upload", file, "--url", service.url)
        assert told.exit_code == 0, told.stderr
        assert told.stdout.startswith(prefix)
        assert service.client.get(f"/v1/{kind}/{told.stdout.strip()}").status_code == 200


def test_a_spec_that_is_none_is_refused_with_what_is_wrong(service, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("gradgauge: 1\ninput: {shape: [8]}\nlayers: [{type: dense, units: -1}]")
    told = run("upload", path, "--url", service.url)
    assert told.exit_code == 2
    assert "layers[0].units" in told.stderr


def test_a_report_is_printed_as_the_service_has_it(service, tmp_path):
    analysis = service.submit(seed=31)
    service.until(analysis)
    path = f"/v1/analyses/{analysis}/report"
    told = run("report", analysis, "--url", service.url)
    assert json.loads(told.stdout) == service.client.get(path).json()
    page = tmp_path / "page.md"
    words = ("--format", "markdown", "-o", page)
    assert run("report", analysis, *words, env={"GRADGAUGE_URL": service.url}).exit_code == 0
    assert page.read_text() == service.client.get(path, params={"format": "markdown"}).text


def test_every_format_that_the_service_writes_can_be_asked_for(service):
    analysis = service.submit(seed=31)
    service.until(analysis)
    contract = service.client.get("/openapi.json").json()
    operation = contract["paths"]["/v1/analyses/{analysis_id}/report"]["get"]
    (known,) = (each for each in operation["parameters"] if each["name"] == "format")
    formats = known["schema"]["enum"]
    assert "model-explorer" in formats
    for form in formats:
        told = run("report", analysis, "--format", form, "--url", service.url)
        path = f"/v1/analyses/{analysis}/report"
        written = service.client.get(path, params={"format": form}).text
        assert told.exit_code == 0, told.stderr
        if form == "json":
            assert json.loads(told.stdout) == json.loads(written)
        else:
            assert told.stdout == written


def test_a_report_that_is_not_there_is_told_so(service, tmp_path):
    told = run("report", "ana_nothing", "--url", service.url)
    assert (told.exit_code, "analysis_not_found" in told.stderr) == (2, True)
    analysis = service.submit(seed=31)
    service.until(analysis)
    told = run("report", analysis, "--url", service.url, "-o", tmp_path / "no" / "page.json")
    assert told.exit_code == 1
    assert "No such file" in told.stderr


def test_a_service_patches_and_the_file_runs(service, spec, tmp_path):
    made = tmp_path / "made.onnx"
    words = ("--profile", "quick", "--url", service.url, "-o", made)
    told = run("patch", spec, "--apply", "R1", *words)
    assert told.exit_code == 0, told.stderr
    assert "the function" in told.stderr
    onnx.checker.check_model(onnx.load(made), full_check=True)
    assert onnxruntime.InferenceSession(made).get_inputs()
    told = run("patch", spec, "--apply", "R999", *words)
    assert told.exit_code == 2
    assert "no recommendation R999: R1 " in told.stderr


def test_to_a_yaml_a_service_writes_the_spec_and_tells_its_diff(service, spec, tmp_path):
    made = tmp_path / "made.yaml"
    words = ("--profile", "quick", "--url", service.url, "-o", made)
    told = run("patch", spec, "--apply", "R1", *words)
    assert told.exit_code == 0, told.stderr
    assert yaml.safe_load(made.read_text())["gradgauge"] == 1
    assert "-      - {type: activation, function: sigmoid}" in told.stderr


def test_a_model_of_no_spec_is_not_written_as_one(service, spec, tmp_path):
    path, made = tmp_path / "deep.onnx", tmp_path / "made.yaml"
    assert export([str(spec), "-o", str(path)]) == 0
    words = ("--profile", "quick", "--url", service.url, "-o", made)
    told = run("patch", path, "--apply", "R1", *words)
    assert (told.exit_code, made.exists()) == (1, False)
    assert "the model is of no spec; ask for .onnx" in told.stderr


def test_without_a_url_the_engine_here_is_asked_with_the_same_words(spec, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(_server, "_load", lambda name: lambda words: seen.append((name, words)))
    saved = tmp_path / "report.json"
    saved.write_text("{}")
    words = ("patch", spec, "--apply", "R1", "-o", "out.onnx", "--seed", 0, "--report", saved)
    run(*words, env={"GRADGAUGE_URL": ""})
    asked = ["--seed=0", f"--report={saved}", "--output=out.onnx", "--apply=R1", "--", str(spec)]
    assert seen == [("patch", asked)]
    told = run(*words, "--url", "http://127.0.0.1:1")
    assert told.exit_code == 2
    assert len(seen) == 1


def test_a_service_that_is_away_is_4(spec, tmp_path):
    for words in (("upload", spec), ("patch", spec, "--apply", "R1", "-o", tmp_path / "x.onnx")):
        assert run(*words, "--url", "http://127.0.0.1:1").exit_code == 4
