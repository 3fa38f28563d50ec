"""From bytes, a file or a spec to a report: what is accepted, refused, told and timed."""

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.errors import InvalidInput, InvalidModel, InvalidOptions
from gradgauge.pipeline import analyze, inspect, load, plan
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.spec import parse_spec
from tests.acceptance.fixtures import export, he, mlp
from tests.handmade import made, node, orthogonal

QUICK = AnalysisOptions(profile="quick", remediate=False)
SPEC = "gradgauge: 1\nname: small\ninput: {shape: [8]}\nlayers: [{type: dense, units: 4}]\n"
JSON = '{"gradgauge": 1, "input": {"shape": [8]}, "layers": [{"type": "dense", "units": 4}]}'
MODEL = made([node("MatMul", "x W", "y")], {"x": ["N", 8]}, "y", {"W": orthogonal(8, 0)})


def test_a_spec_is_known_as_bytes_as_a_file_and_as_itself(tmp_path):
    (tmp_path / "small.yaml").write_text(SPEC)
    (tmp_path / "small.json").write_text(JSON)
    sources = [
        SPEC.encode(),
        JSON.encode(),
        b"  \n# a comment\n" + SPEC.encode(),
        b"---\n" + SPEC.encode(),
        tmp_path / "small.yaml",
        tmp_path / "small.json",
        parse_spec(SPEC),
    ]
    for source in sources:
        report = analyze(source, QUICK)
        assert report.model.format == "spec"
        assert report.weights.state == "fresh"
        assert report.model.param_count == 8 * 4 + 4


def test_a_model_is_known_as_bytes_and_as_a_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(MODEL)
    for source in (MODEL, tmp_path / "model.onnx"):
        assert analyze(source, QUICK).model.format == "onnx"


@pytest.mark.parametrize("name", ["none.onnx", "none.yaml", "none.json", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path, name):
    with pytest.raises(InvalidInput):
        analyze(tmp_path / name, QUICK)


def test_a_graph_with_nothing_to_run_or_to_feed_is_refused():
    with pytest.raises(InvalidModel) as fault:
        analyze(made([], {"x": ["N", 8]}, "x"), QUICK)
    assert fault.value.code == "no_nodes"
    with pytest.raises(InvalidModel) as fault:
        analyze(made([node("MatMul", "W W", "y")], {}, "y", {"W": orthogonal(8, 0)}), QUICK)
    assert fault.value.code == "no_inputs"


def test_stages_are_told_in_order_up_to_the_whole_and_timed():
    told = []
    model = export(mlp(nn.ReLU, he(4.0), depth=6), torch.zeros(2, 64))
    report = analyze(
        model, AnalysisOptions(profile="quick"), on_progress=lambda *at: told.append(at)
    )
    stages = list(dict.fromkeys(stage for stage, _ in told))
    assert stages == ["read", "analytic", "sampled", "remedy"]
    for stage in ("sampled", "remedy"):
        shares = [share for name, share in told if name == stage]
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
    spent = report.provenance.stage_ms
    assert spent.keys() == {"read", "measure", "remedy", "sampled.passes"}
    assert spent["sampled.passes"] <= spent["measure"]
    assert report.provenance.started_at <= report.provenance.finished_at


def test_remedies_are_tried_only_if_asked_for():
    model = export(mlp(nn.ReLU, he(4.0), depth=6), torch.zeros(2, 64))
    assert analyze(model, QUICK).recommendations == []
    assert analyze(model, AnalysisOptions(profile="quick")).recommendations


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("target", "loss"),
    [
        (np.zeros(4, np.int64), "cross_entropy"),
        (np.zeros(4, np.uint8), "cross_entropy"),
        (np.zeros((4, 8), np.float32), "mse"),
        (None, "random_cotangent"),
    ],
)
def test_the_target_sets_the_loss_unless_the_user_did(tmp_path, target, loss):
    held = {"x": np.ones((4, 8))} | ({} if target is None else {"y": target})
    path = saved(tmp_path / "b.npz", **held)
    options = AnalysisOptions(data=path)
    assert plan(options, load(MODEL, options)[1]).loss == loss
    options = AnalysisOptions(data=path, loss="random_cotangent")
    assert plan(options, load(MODEL, options)[1]).loss == "random_cotangent"


def test_targets_that_do_not_fit_the_output_are_refused(tmp_path):
    path = saved(tmp_path / "b.npz", x=np.ones((4, 8)), y=np.full(4, 8))
    with pytest.raises(InvalidOptions, match="targets"):
        analyze(MODEL, AnalysisOptions(profile="quick", data=path))


def test_a_fixed_batch_takes_the_targets_of_its_own_rows(tmp_path):
    model = made([node("MatMul", "x W", "y")], {"x": [4, 8]}, "y", {"W": orthogonal(8, 0)})
    rng = np.random.default_rng(0)
    path = saved(tmp_path / "b.npz", x=rng.normal(size=(20, 8)), y=rng.integers(0, 8, 20))
    report = analyze(model, AnalysisOptions(profile="quick", data=path))
    assert report.layers[0].sampled.loss == "cross_entropy"
    assert report.layers[0].sampled.n == 4 * 16


def test_inspection_tells_the_facts_without_running_anything():
    model = export(mlp(nn.ReLU, he(), depth=2, width=8, outputs=3), torch.zeros(2, 8))
    facts = inspect(model)
    assert facts.inputs == {"x": ["N", 8]}
    assert facts.outputs == {"y": ["N", 3]}
    assert facts.ops["Gemm"] == 3
    assert facts.ops["Relu"] == 2
    assert facts.layer_count == 5
    assert facts.opset == {"ai.onnx": 17}
    assert facts.size_bytes == len(model)
    with pytest.raises(InvalidModel):
        inspect(b"not a model")
