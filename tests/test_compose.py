"""The report as a whole: valid against its own schema whatever the network, and consistent."""

import json

import jsonschema
import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import nn

from gradgauge.pipeline import analyze
from gradgauge.schema.options import AnalysisOptions
from gradgauge.schema.report import json_schema
from tests.acceptance.fixtures import LastStep, PreLN, export, glorot, he, mlp
from tests.handmade import INT64, made, node, orthogonal

W = orthogonal(8, 0)


def broken(value):
    V = W.copy()
    V[0, 0] = value
    nodes = [node("MatMul", "x V", "h"), node("Relu", "h", "a"), node("MatMul", "a W", "y")]
    return made(nodes, {"x": ["N", 8]}, "y", {"V": V, "W": W})


def named(text):
    found = onnx_node(text)
    return made([found], {"x": ["N", 8]}, "y", {"W": W})


def onnx_node(text):
    found = node("MatMul", "x W", "y")
    found.name = text
    return found


MODELS = {
    "sigmoid": lambda: export(mlp(nn.Sigmoid, glorot, depth=10), torch.zeros(2, 64)),
    "exploding": lambda: export(mlp(nn.ReLU, he(4.0), depth=8), torch.zeros(2, 64)),
    "rnn": lambda: export(LastStep(seed=0), torch.zeros(2, 60, 8)),
    "transformer": lambda: export(PreLN(2, 0), torch.zeros(2, 6, dtype=torch.long)),
    "NaN weight": lambda: broken(np.nan),
    "infinite weight": lambda: broken(np.inf),
    "largest float32": lambda: broken(3e38),
    "zeros": lambda: made([node("MatMul", "x W", "y")], {"x": ["N", 8]}, "y", {"W": 0 * W}),
    "fixed batch of one": lambda: made([node("MatMul", "x W", "y")], {"x": [1, 8]}, "y", {"W": W}),
    "no parameters": lambda: made([node("Relu", "x", "y")], {"x": ["N", 8]}, "y"),
    "unsupported op": lambda: made(
        [
            node("MatMul", "x W", "h"),
            node("Cast", "h", "b", to=TensorProto.UINT8),
            node("ImageDecoder", "b", "i"),
            node("Cast", "i", "y", to=TensorProto.FLOAT),
        ],
        {"x": [8]},
        "y",
        {"W": W},
        opset=20,
    ),
    "empty weight": lambda: made(
        [node("MatMul", "x W", "y")], {"x": ["N", 8]}, "y", {"W": np.zeros((8, 0))}
    ),
    "hostile name": lambda: named("</script>\x00\u202e|`\n" + "a" * 2000),
    "ids": lambda: made(
        [node("Gather", "W ids", "y")], {"ids": (INT64, ["N", "T"])}, "y", {"W": W}
    ),
}


@pytest.mark.parametrize("engines", [["analytic", "sampled"], ["analytic"], ["sampled"]])
@pytest.mark.parametrize("name", MODELS)
def test_the_report_of_every_network_satisfies_its_schema_and_itself(name, engines):
    report = analyze(MODELS[name](), AnalysisOptions(profile="quick", engines=engines))
    text = report.model_dump_json()
    read = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are no JSON
    jsonschema.Draft202012Validator(json_schema()).validate(read)

    ids = {layer.id for layer in report.layers}
    findings = {f.id: f for f in report.findings}
    recommendations = {r.id: r for r in report.recommendations}
    for f in report.findings:
        assert f.origins
        assert ids >= {*f.origins, *f.affected}
        assert not {*f.origins} & {*f.affected}
        assert f.affected_count == len(f.affected)
        assert all(f.id in recommendations[r].finding_ids for r in f.recommendation_ids)
    for layer in report.layers:
        assert findings.keys() >= set(layer.finding_ids)
        starts = any(layer.id in findings[i].origins for i in layer.finding_ids)
        assert layer.risk.role == (
            "origin" if starts else "affected" if layer.finding_ids else "none"
        )
    counts = report.summary.severity_counts.model_dump()
    assert sum(counts.values()) == len(report.findings)
    assert report.coverage.params_covered <= report.coverage.params_total


def test_a_zero_gradient_is_null_with_its_flag_and_nothing_else_is():
    report = analyze(MODELS["zeros"](), AnalysisOptions(profile="quick"))
    (row,) = report.layers
    assert row.sampled.zero_gradient is False  # at its own output there is one
    assert row.sampled.log10_grad_act.q50 is not None
    inf = analyze(MODELS["infinite weight"](), AnalysisOptions(profile="quick"))
    first = inf.layers[0].sampled
    assert first.forward_rms is None
    assert "GF301" in {f.rule_id for f in inf.findings}


def test_the_same_model_and_options_have_the_same_report_but_for_the_clock():
    reports = [
        analyze(MODELS["sigmoid"](), AnalysisOptions(profile="quick", seed=seed)).model_dump()
        for seed in (1, 1, 2)
    ]
    clocks = {"started_at", "finished_at", "stage_ms"}
    for report in reports:
        for name in clocks:
            del report["provenance"][name]
    assert reports[0] == reports[1]
    assert reports[0]["id"] != reports[2]["id"]


def test_parameters_count_as_covered_only_where_every_engine_reached_them():
    def share(name, **options):
        cover = analyze(MODELS[name](), AnalysisOptions(profile="quick", **options)).coverage
        return cover.params_covered / cover.params_total

    assert share("sigmoid") == 1.0
    assert share("unsupported op", engines=["sampled"]) == 0.0


def test_the_initial_state_of_a_recurrent_layer_counts_as_covered():
    stored = {
        "W": orthogonal(3, 0)[None],
        "R": orthogonal(3, 1)[None],
        "h0": np.zeros((1, 50, 3)),
    }
    nodes = [node("RNN", "x W R - - h0", "Y", hidden_size=3), node("Identity", "Y", "y")]
    report = analyze(made(nodes, {"x": [4, 50, 3]}, "y", stored), AnalysisOptions(profile="quick"))
    assert report.coverage.params_covered == report.coverage.params_total == 9 + 9 + 150


def test_options_without_effect_are_told_of():
    report = analyze(MODELS["ids"](), AnalysisOptions(profile="quick", target_dtypes=["fp16"]))
    told = [w.message for w in report.warnings if w.code == "W_OPTION_UNUSED"]
    assert len(told) == 1


def test_gradients_by_time_step_are_a_series():
    report = analyze(MODELS["rnn"](), AnalysisOptions(profile="quick", remediate=False))
    (series,) = report.series
    assert series.x == [float(i) for i in range(60)]
    assert series.y[0] < series.y[-1]


@pytest.mark.parametrize("profile", ["quick", "standard", "deep"])
@pytest.mark.parametrize("shape", [(8, 0), (0, 4)])
def test_weights_without_elements_are_measured_in_every_profile(profile, shape):
    """An empty output, and an empty input."""
    x = ["N", shape[0]]
    model = made([node("MatMul", "x W", "y")], {"x": x}, "y", {"W": np.zeros(shape)})
    report = analyze(model, AnalysisOptions(profile=profile))
    assert "W_ZERO_SIZE_TENSOR" in {w.code for w in report.warnings}
