"""Reports in MLflow runs: what MLflow is called with, and what it keeps where it is installed."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from gradgauge_client import _engine
from gradgauge_client import mlflow as ours
from gradgauge_client._errors import GradgaugeError
from gradgauge_client._report import reported
from tests import reports

PROBABLE = {
    "p": 0.83,
    "lr": None,
    "low": 0.7,
    "high": 0.9,
    "base_rate": 0.4,
    "confidence": 1.0,
    "calibration": "trainability-2026.3",
}


@pytest.fixture
def report():
    held = reports.report()
    held["summary"]["probability_untrainable"] = {
        "sgd": PROBABLE,
        "adam": PROBABLE | {"p": 0.25},
    }
    return reported(held)


class Recorder(ModuleType):
    """MLflow's names that are used, and what they were given."""

    def __init__(self):
        super().__init__("mlflow")
        self.active, self.batches, self.texts = None, [], {}
        self.MlflowClient = lambda: SimpleNamespace(
            log_batch=lambda run_id, metrics, tags: self.batches.append((run_id, metrics, tags)),
            log_text=lambda run_id, text, artifact_file: self.texts.update({artifact_file: text}),
        )

    def active_run(self):
        return self.active and SimpleNamespace(info=SimpleNamespace(run_id=self.active))


@pytest.fixture
def recorder(monkeypatch):
    made, entities = Recorder(), ModuleType("mlflow.entities")
    entities.Metric = lambda name, value, at, step: (name, value, step)
    entities.RunTag = lambda name, text: (name, text)
    monkeypatch.setitem(sys.modules, "mlflow", made)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return made


def expected_metrics(report):
    counts = report.summary.severity_counts
    covered = report.coverage
    return {
        "gradgauge.score": 23.0,
        "gradgauge.spread_decades": 9.8,
        "gradgauge.agreement_fraction": 0.95,
        "gradgauge.coverage_fraction": covered.params_covered / covered.params_total,
        "gradgauge.findings.critical": 1.0,
        "gradgauge.findings.high": 0.0,
        "gradgauge.findings.medium": float(counts.medium),
        "gradgauge.findings.low": 0.0,
        "gradgauge.probability_untrainable.sgd": 0.83,
        "gradgauge.probability_untrainable.adam": 0.25,
    }


def test_numbers_are_metrics_the_verdict_a_tag_and_the_report_artifacts(recorder, report):
    recorder.active = "run1"
    assert ours.log_report(report, step=7, formats=("html", "markdown")) == "run1"
    ((run_id, metrics, tags),) = recorder.batches
    assert run_id == "run1"
    assert {name: value for name, value, _ in metrics} == expected_metrics(report)
    assert {step for _, _, step in metrics} == {7}
    assert dict(tags)["gradgauge.verdict"] == "fail"
    assert dict(tags)["gradgauge.headline"] == report.summary.headline
    assert dict(tags)["gradgauge.report_id"] == "rep_1"
    assert recorder.texts == {
        "gradgauge/report.json": report.to_json(),
        "gradgauge/report.html": report.to_html(),
        "gradgauge/report.md": report.to_markdown(),
    }


def test_what_is_not_known_is_not_logged(recorder):
    held = reports.report()
    held["summary"] |= {"score": None, "agreement_fraction": None}
    ours.log_report(reported(held), run_id="run2", formats=())
    ((run_id, metrics, _),) = recorder.batches
    assert run_id == "run2"
    names = {name for name, _, _ in metrics}
    assert names.isdisjoint(
        {
            "gradgauge.score",
            "gradgauge.agreement_fraction",
            "gradgauge.probability_untrainable.sgd",
        }
    )
    assert list(recorder.texts) == ["gradgauge/report.json"]


def test_nothing_is_logged_without_a_run_or_in_a_format_that_nobody_writes(
    recorder, report, monkeypatch
):
    with pytest.raises(ValueError, match="no MLflow run is active: start one, or give run_id"):
        ours.log_report(report)
    with pytest.raises(ValueError, match="unknown format 'pdf': choose of html, markdown"):
        ours.log_report(report, run_id="r", formats=("pdf",))

    def missing(_name):
        raise _engine.EngineMissing("not installed")

    monkeypatch.setattr(_engine, "load", missing)
    with pytest.raises(GradgaugeError, match="html of no service is written here"):
        ours.log_report(report, run_id="r")
    assert (recorder.batches, recorder.texts) == ([], {})


def test_without_mlflow_it_is_said_how_to_get_it(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    told = r'log_report needs mlflow: pip install "gradgauge-client\[mlflow\]"'
    with pytest.raises(ImportError, match=told):
        ours.log_report(report, run_id="r")


def test_mlflow_itself_keeps_what_was_logged(report, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="an extra: gradgauge-client[mlflow]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    with mlflow.start_run() as run:
        assert ours.log_report(report, formats=()) == run.info.run_id
    client = mlflow.MlflowClient()
    kept = client.get_run(run.info.run_id).data
    assert kept.metrics == expected_metrics(report)
    assert kept.tags["gradgauge.verdict"] == "fail"
    path = client.download_artifacts(run.info.run_id, "gradgauge/report.json", str(tmp_path))
    assert json.loads(Path(path).read_text(encoding="utf-8"))["id"] == "rep_1"
