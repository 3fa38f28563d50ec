"""A recommendation's model: the copy that was measured, made again from what the report says."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest

from gradgauge import pipeline
from gradgauge.cli.patcher import patch
from gradgauge.errors import InvalidInput
from gradgauge.remedy.patched import Wanted
from gradgauge.schema.options import AnalysisOptions
from tests.remedy import networks

QUICK = AnalysisOptions(profile="quick")
SPEC = """
gradgauge: 1
input: {shape: [32]}
layers:
  - type: repeat
    times: 12
    layers:
      - {type: dense, units: 32}
      - {type: activation, function: sigmoid}
  - {type: dense, units: 4}
"""


def wanted(recommendation, **changes):
    held = recommendation.model_dump(include={"id", "action", "title", "finding_ids"})
    return Wanted.model_validate(held | changes)


def run(content, x):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


@pytest.fixture(scope="module")
def outlier():
    return networks.outlier()


@pytest.fixture(scope="module")
def report(outlier):
    return pipeline.analyze(outlier, QUICK)


def names(proto):
    return [v.name for v in proto.graph.initializer], [n.name for n in proto.graph.node]


def test_the_patched_model_is_healthy_and_runs_in_onnxruntime(outlier, report):
    first = report.recommendations[0]
    made = pipeline.patched(outlier, wanted(first), QUICK)
    content = made.content()
    again = pipeline.analyze(content, AnalysisOptions(profile="quick", remediate=False))
    (spread,) = [v for v in first.verified if v.metric == "summary.spread_decades"]
    assert again.summary.spread_decades == pytest.approx(spread.after, abs=1e-6)
    x = np.random.default_rng(0).normal(size=(2, networks.WIDTH)).astype(np.float32)
    assert np.isfinite(run(content, x)).all()
    assert names(onnx.load_from_string(content)) == names(onnx.load_from_string(outlier))


def test_a_function_preserving_recommendation_computes_what_the_model_did():
    model = networks.lopsided(by=1e5)
    told = pipeline.analyze(model, QUICK).recommendations
    kept = next(r for r in told if r.function_preserving and r.targets)
    made = pipeline.patched(model, wanted(kept), QUICK)
    x = np.random.default_rng(1).normal(size=(2, networks.WIDTH)).astype(np.float32)
    before = run(model, x).astype(float)
    assert run(made.content(), x) == pytest.approx(
        before, rel=1e-4, abs=1e-5 * float(abs(before).max())
    )
    assert made.function_preserving
    assert made.changes


def test_what_is_no_recommendation_of_this_model_is_refused(outlier, report):
    first = report.recommendations[0]
    for code, changes in (
        ("unknown_finding", {"finding_ids": ["F999"]}),
        ("unknown_remedy", {"action": "prayer"}),
        ("no_patch", {"action": "clip_gradients"}),
        ("another_title", {"title": "Something else"}),
    ):
        with pytest.raises(InvalidInput) as refused:
            pipeline.patched(outlier, wanted(first, **changes), QUICK)
        assert refused.value.code == code


def test_the_command_writes_the_model_of_a_saved_report(outlier, report, tmp_path, capsys):
    model, saved, out = (tmp_path / name for name in ("m.onnx", "report.json", "out.onnx"))
    model.write_bytes(outlier)
    saved.write_text(report.model_dump_json())
    words = [str(model), "--report", str(saved), "--profile", "quick", "-o", str(out)]
    assert patch([*words, "--apply", "R1"]) == 0
    said = {p.key: p.value for p in onnx.load(out).metadata_props}
    first = report.recommendations[0]
    assert said["gradgauge.recommendation"] == f"{first.action}: {first.title}"
    assert first.title in capsys.readouterr().err
    out.unlink()
    assert patch([*words, "--apply", "R99"]) == 2
    assert "no recommendation R99" in capsys.readouterr().err
    assert patch([*words[:-1], str(tmp_path / "no" / "out.onnx"), "--apply", "R1"]) == 1
    held = json.loads(saved.read_text())
    saved.write_text(json.dumps(held["summary"]))
    assert patch([*words, "--apply", "R1"]) == 2
    assert not out.exists()


def test_a_patch_of_a_start_anew_says_so_and_keeps_no_function(tmp_path, capsys):
    model = networks.sigmoid()
    options = QUICK.model_copy(update={"reinitialize": True})
    report = pipeline.analyze(model, options)
    first = report.recommendations[0]
    made = pipeline.patched(model, wanted(first), options)
    assert not made.function_preserving
    content = made.content()
    said = {p.key: p.value for p in onnx.load_from_string(content).metadata_props}
    anew = said["gradgauge.reinitialized"]
    assert anew.startswith("weights drawn anew by seed 0; dense weights ")
    assert made.changes == (anew, *said["gradgauge.patch"].split("; "))
    again = pipeline.analyze(content, AnalysisOptions(profile="quick", remediate=False))
    (spread,) = [v for v in first.verified if v.metric == "summary.spread_decades"]
    assert again.summary.spread_decades == pytest.approx(spread.after, abs=1e-6)
    stored, saved, out = (tmp_path / name for name in ("m.onnx", "report.json", "out.onnx"))
    stored.write_bytes(model)
    saved.write_text(report.model_dump_json())
    words = [str(stored), "--report", str(saved), "--profile", "quick", "-o", str(out)]
    assert patch([*words, "--apply", first.id, "--reinitialize"]) == 0
    assert onnx.load(out).graph == onnx.load_from_string(content).graph
    assert anew in capsys.readouterr().err


def test_the_command_writes_a_spec_and_shows_what_changed(tmp_path, capsys):
    spec, saved, out = (tmp_path / name for name in ("s.yaml", "report.json", "out.yaml"))
    spec.write_text(SPEC)
    report = pipeline.analyze(spec, QUICK)
    saved.write_text(report.model_dump_json())
    swap = next(r for r in report.recommendations if r.action == "replace_activation")
    words = [str(spec), "--report", str(saved), "--profile", "quick", "--apply", swap.id]
    assert patch([*words, "-o", str(out)]) == 0
    assert "+      - {type: activation, function: relu}" in capsys.readouterr().err
    again = pipeline.analyze(out, AnalysisOptions(profile="quick", remediate=False))
    (spread,) = [v for v in swap.verified if v.metric == "summary.spread_decades"]
    # drawn anew: the law is the same, the numbers are not
    assert again.summary.spread_decades == pytest.approx(spread.after, abs=0.4)
    assert patch([*words, "-o", str(tmp_path / "out.onnx")]) == 0
    assert onnx.load(tmp_path / "out.onnx").graph.node


def test_a_model_is_not_written_as_a_spec(outlier, report, tmp_path, capsys):
    model, saved, out = (tmp_path / name for name in ("m.onnx", "report.json", "out.yaml"))
    model.write_bytes(outlier)
    saved.write_text(report.model_dump_json())
    words = [str(model), "--report", str(saved), "--profile", "quick", "-o", str(out)]
    assert patch([*words, "--apply", "R1"]) == 1
    assert "the model is of no spec" in capsys.readouterr().err
    assert not out.exists()
