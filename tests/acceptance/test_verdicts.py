"""What the engine must say of networks whose fate is known, over depths and seeds."""

import math
import re

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradgauge.graph.read_onnx import read_onnx
from gradgauge.pipeline import analyze
from gradgauge.remedy.patch import apply
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import Finding, Report
from tests.acceptance.fixtures import (
    LastStep,
    PreLN,
    Unrolled,
    autograd_decades,
    change_weights,
    dense_chain,
    export,
    glorot,
    he,
    mlp,
    resnet18_like,
)

QUICK = AnalysisOptions(profile="quick", remediate=False)
SEEDS = (0, 1, 2)


def finding(report: Report, rule: str) -> Finding:
    return next(f for f in report.findings if f.rule_id == rule)


def names(report: Report, ids: list[str]) -> list[str]:
    by_id = {layer.id: layer for layer in report.layers}
    return [by_id[i].name for i in ids]


def healthy(report: Report) -> bool:
    severe = [f for f in report.findings if f.severity in {"high", "critical"}]
    return report.summary.verdict == "pass" and not severe


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [8, 16, 32])
def test_a_sigmoid_mlp_with_glorot_fails_as_vanishing(depth, seed):
    model = export(mlp(nn.Sigmoid, glorot, depth=depth, seed=seed), torch.zeros(2, 64))
    report = analyze(model, QUICK)
    assert report.summary.verdict == "fail"
    found = finding(report, "GF101")
    assert found.category == "vanishing"
    assert {layer.op for layer in report.layers if layer.id in found.origins} == {"Sigmoid"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [8, 16, 32])
def test_a_relu_mlp_at_four_times_he_fails_as_exploding(depth, seed):
    model = export(mlp(nn.ReLU, he(4.0), depth=depth, seed=seed), torch.zeros(2, 64))
    report = analyze(model, QUICK)
    assert report.summary.verdict == "fail"
    found = finding(report, "GF102")
    assert found.category == "exploding"
    assert {layer.op for layer in report.layers if layer.id in found.origins} == {"Gemm"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("module", [LastStep, Unrolled])
def test_a_hundred_step_tanh_rnn_vanishes_over_time_steps(module, seed):
    model = export(module(seed=seed), torch.zeros(2, 100, 8))
    report = analyze(model, QUICK)
    assert report.summary.verdict == "fail"
    found = finding(report, "GF103")
    assert found.category == "vanishing"
    assert "over 100 time steps" in found.message
    assert any(s.name.startswith("gradient_by_time_step") for s in report.series)
    assert not any(f.rule_id == "GF101" for f in report.findings)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("width", [8, 16, 24])
def test_a_resnet18_like_network_at_default_initialisation_passes(width, seed):
    """Exported in training mode, so that the graph has its BatchNormalization nodes."""
    model = export(resnet18_like(seed, width), torch.zeros(2, 3, 32, 32), training=True)
    report = analyze(model, AnalysisOptions(profile="quick", samples=16))
    assert healthy(report), [f.message for f in report.findings]
    assert sum(layer.op == "BatchNormalization" for layer in report.layers) == 20


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resnet_whose_batchnorm_the_exporter_folded_has_no_high_finding(seed):
    model = export(resnet18_like(seed), torch.zeros(2, 3, 32, 32))
    report = analyze(model, AnalysisOptions(profile="quick", samples=16))
    assert not any(layer.op == "BatchNormalization" for layer in report.layers)
    assert healthy(report), [f.message for f in report.findings]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [6, 12, 24])
def test_a_relu_he_mlp_passes(depth, seed):
    net = mlp(nn.ReLU, he(), depth=depth, width=128, seed=seed)
    report = analyze(export(net, torch.zeros(2, 128)), QUICK)
    assert healthy(report), [f.message for f in report.findings]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_a_pre_ln_transformer_at_default_initialisation_passes(depth, seed):
    model = export(PreLN(depth, seed), torch.zeros(2, 12, dtype=torch.long))
    report = analyze(model, QUICK)
    assert healthy(report), (report.gate, [f.message for f in report.findings])


@pytest.mark.parametrize("layer", [4, 9, 15])
def test_the_origin_is_the_layer_whose_weights_are_a_thousandth(layer):
    net = mlp(nn.ReLU, he(), depth=20, width=128)
    model = change_weights(
        export(net, torch.zeros(2, 128)), f"{2 * layer}.weight", lambda W: W * 1e-3
    )
    report = analyze(model, QUICK)
    assert report.summary.verdict == "fail"
    found = finding(report, "GF101")
    assert names(report, found.origins) == [f"/{2 * layer}/Gemm"]
    sizes = {row.id: row.sampled.log10_grad_act.q50 for row in report.layers if row.op == "Gemm"}
    assert min(sizes, key=sizes.get) not in found.origins
    assert all(sizes[a] < sizes[found.origins[0]] for a in found.affected)


@pytest.mark.parametrize("layer", [4, 9, 15])
def test_the_origin_is_the_layer_whose_bias_is_minus_ten(layer):
    net = mlp(nn.ReLU, he(), depth=20, width=128)
    with torch.no_grad():
        net[2 * layer].bias.fill_(-10.0)
    model = export(net, torch.zeros(2, 128))
    report = analyze(model, QUICK)
    assert report.summary.verdict == "fail"
    found = finding(report, "GF201")
    assert found.category == "dead_units"
    assert names(report, found.origins) == [f"/{2 * layer}/Gemm"]
    origins = {o for f in report.findings for o in f.origins}
    assert origins == set(found.origins)


@pytest.mark.parametrize("depth", [10, 20])
def test_the_verified_remedy_brings_a_sigmoid_net_under_one_decade_by_autograd(depth, tmp_path):
    model = export(mlp(nn.Sigmoid, glorot, depth=depth, width=128), torch.zeros(2, 128))
    options = AnalysisOptions(profile="quick")
    report = analyze(model, options)
    # the best that leaves a chain of dense layers, which the oracle reads
    best = next(
        r
        for r in report.recommendations
        if r.verification == "verified" and not re.search("norm|residual|adam", r.action)
    )
    told = next(v for v in best.verified if v.metric == "summary.spread_decades")
    assert told.after < 1.0 < told.before
    assert told.ci_after.low <= told.after <= told.ci_after.high

    patched = patched_model(model, options, best.id)
    sizes = autograd_decades(dense_chain(patched))
    assert max(sizes) - min(sizes) < 1.0
    before = autograd_decades(dense_chain(onnx.load_from_string(model)))
    assert max(before) - min(before) > 3.0


def patched_model(model: bytes, options: AnalysisOptions, rank: str) -> onnx.ModelProto:
    """The recommendation's patch, found and applied again by the engine's own parts."""
    import onnx_ir

    from gradgauge.assess import assess
    from gradgauge.pipeline import load, plan
    from gradgauge.remedy.verify import try_all

    graph, reading = load(model, options)
    assessment = assess(graph, reading, plan(options, reading))
    tried = try_all(assessment)[int(rank[1:]) - 1]
    return onnx_ir.to_proto(apply(graph.model, tried.patch))


def test_a_gradient_below_1e45_is_given_in_decades():
    net = mlp(nn.Sigmoid, glorot, depth=100, width=64)
    model = export(net, torch.zeros(2, 64))
    report = analyze(model, AnalysisOptions(remediate=False))
    expected = autograd_decades(dense_chain(onnx.load_from_string(model)), draws=64)
    got = [r.sampled.log10_grad_act.q50 for r in report.layers if r.op == "Gemm"]
    assert expected[0] < -45
    assert got == pytest.approx(expected, abs=0.05)
    assert not any(r.sampled.zero_gradient for r in report.layers)


def test_a_gradient_above_1e30_is_given_in_decades():
    net = mlp(nn.ReLU, he(3.6), depth=60, width=128)
    model = export(net, torch.zeros(2, 128))
    report = analyze(model, AnalysisOptions(remediate=False))
    expected = autograd_decades(dense_chain(onnx.load_from_string(model)), draws=64)
    got = [r.sampled.log10_grad_act.q50 for r in report.layers if r.op == "Gemm"]
    assert expected[0] > 30
    assert got == pytest.approx(expected, abs=0.05)


def test_a_gradient_below_float64_is_still_not_called_zero():
    """-0.63 decades a layer: 600 layers end near 1e-376, beyond float64 without rescaling."""
    net = mlp(nn.Sigmoid, glorot, depth=600, width=8)
    report = analyze(export(net, torch.zeros(2, 8)), QUICK)
    gemms = [r for r in report.layers if r.op == "Gemm"]
    first, middle = gemms[0].sampled.log10_grad_act.q50, gemms[300].sampled.log10_grad_act.q50
    assert first < -320
    assert not gemms[0].sampled.zero_gradient
    assert first - middle == pytest.approx(middle - gemms[-1].sampled.log10_grad_act.q50, rel=0.1)


def test_an_exact_zero_is_called_zero():
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(x) * torch.zeros(8))

    report = analyze(export(Cut(), torch.zeros(2, 8)), QUICK)
    first = next(r for r in report.layers if r.name == "/a/Gemm")
    assert first.sampled.zero_gradient is True
    assert first.sampled.log10_grad_act is None or first.sampled.log10_grad_act.q50 is None
    assert finding(report, "GF105").severity in {"medium", "critical"}


def test_unsupported_ops_are_all_named_and_the_report_still_comes():
    x = onnx.helper.make_tensor_value_info("x", 1, ["N", 8])
    y = onnx.helper.make_tensor_value_info("y", 1, ["N", 8])
    W = onnx.numpy_helper.from_array(np.eye(8, dtype=np.float32), "W")
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "W"], ["a"], name="first"),
        onnx.helper.make_node("StrangeOp", ["a"], ["b"], name="odd", domain="my.ops"),
        onnx.helper.make_node("OtherOp", ["b"], ["y"], name="odder", domain="my.ops"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", [x], [y], [W])
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("my.ops", 3)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    report = analyze(model.SerializeToString(), QUICK)
    assert report.summary.verdict == "inconclusive"
    assert set(report.coverage.unsupported_ops) == {"my.ops::StrangeOp-3", "my.ops::OtherOp-3"}
    assert {r.sampled.status for r in report.layers} == {"not_supported"}
    assert "StrangeOp" in report.gate.reason


def test_a_users_batch_sets_the_loss_and_the_input(tmp_path):
    model = export(mlp(nn.ReLU, he(), depth=4), torch.zeros(2, 64))
    rng = np.random.default_rng(0)
    path = tmp_path / "batch.npz"
    np.savez(path, x=rng.normal(size=(40, 64)), y=rng.integers(0, 10, 40), other=np.zeros(3))
    report = analyze(model, AnalysisOptions(profile="quick", remediate=False, data=path))
    assert {r.sampled.loss for r in report.layers} == {"cross_entropy"}
    assert {r.sampled.input_kind for r in report.layers} == {"user_batch"}
    assert any(w.code == "W_UNUSED_ARRAY" and "other" in w.message for w in report.warnings)
    head = report.layers[-1].sampled.log10_grad_act.q50
    # softmax minus one-hot over 10 classes: RMS between 0.1 and 1
    assert -1.0 < head < 0.0


def test_the_same_seed_gives_the_same_report_and_another_seed_another():
    model = export(mlp(nn.Tanh, glorot, depth=3), torch.zeros(2, 64))

    def sizes(seed: int) -> list[float]:
        report = analyze(model, AnalysisOptions(profile="quick", seed=seed))
        return [r.sampled.log10_grad_act.q50 for r in report.layers]

    assert sizes(5) == sizes(5)
    assert sizes(5) != sizes(6)


def test_a_fixed_batch_of_one_is_analysed():
    model = export(mlp(nn.ReLU, he(), depth=3), torch.zeros(1, 64), axes={})
    report = analyze(model, QUICK)
    expected = autograd_decades(dense_chain(onnx.load_from_string(model)))
    got = [r.sampled.log10_grad_act.q50 for r in report.layers if r.op == "Gemm"]
    assert got == pytest.approx(expected, abs=0.1)
    assert math.isfinite(report.summary.spread_decades)


def test_the_reader_and_the_report_agree_on_what_was_read():
    model = export(mlp(nn.ReLU, he(), depth=3), torch.zeros(2, 64))
    report = analyze(model, QUICK)
    graph = read_onnx(model)
    assert report.model.id == f"sha256:{graph.sha256}"
    # the exporter stores the three equal (zero) biases of the hidden layers once
    assert report.model.param_count == 3 * 64 * 64 + 64 + 64 * 10 + 10
    assert report.coverage.params_covered == report.coverage.params_total
