"""The forward pass against another runtime: what counts as a difference, and what it does."""

import math
from dataclasses import replace as with_

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto
from torch import nn

from gradgauge.errors import NotCompared
from gradgauge.ops import table
from gradgauge.ops.table import lookup
from gradgauge.pipeline import analyze
from gradgauge.sampled import executor, reference
from gradgauge.schema.options import AnalysisOptions
from tests.acceptance.fixtures import export, glorot, mlp
from tests.handmade import made, node, orthogonal

QUICK = AnalysisOptions(profile="quick", remediate=False)
ROOM = {"x": ["N", 8]}


def in_process(model):
    """onnxruntime as a seam of the pipeline wants it: started on inputs, asked for its outputs."""

    def start(_, fed):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
        outputs = session.run(None, dict(fed))
        return lambda: outputs

    return start


def scripted(change):
    """A runtime that answers with `change` of what the model's own answer is."""

    def runtime(model):
        real = in_process(model)
        return lambda graph, fed: lambda: [change(y) for y in real(graph, fed)()]

    return runtime


def checked(model, runtime=in_process, **options):
    given = QUICK.model_copy(update=options)
    return analyze(model, given, runtime=runtime(model))


def measured(report):
    return next(m for m in report.measurements if m.name == "onnxruntime_difference")


def rule(report):
    return next(c for c in report.checks if c.rule_id == "GF401")


def linear():
    nodes = [node("MatMul", "x W", "h"), node("Softplus", "h", "y")]
    return made(nodes, ROOM, "y", {"W": orthogonal(8, 0)})


def test_a_good_model_agrees_to_rounding_and_the_verdict_is_as_before():
    report = checked(linear())
    assert 0 <= measured(report).value < 1e-6
    assert "8 inputs" in measured(report).note
    assert rule(report).status == "passed"
    assert report.summary.verdict == analyze(linear(), QUICK).summary.verdict == "pass"
    assert report.provenance.stage_ms["onnxruntime"] > 0


def test_without_a_runtime_the_rule_was_not_run_and_says_so():
    report = analyze(linear(), QUICK)
    assert rule(report).status == "not_run"
    assert "onnxruntime_difference" not in {m.name for m in report.measurements}
    assert "no other runtime was given" in rule(report).reason


def test_an_op_that_is_wrong_is_found_and_leaves_the_verdict_open(monkeypatch):
    def wrong(domain, op, opset):
        row = lookup(domain, op, opset)
        if op != "Softplus":
            return row
        return with_(row, run=lambda x: table.lookup("", "Relu", 18).run(x))

    monkeypatch.setattr(executor, "lookup", wrong)
    report = checked(linear())
    (finding,) = [f for f in report.findings if f.rule_id == "GF401"]
    assert (finding.category, finding.severity) == ("disagreement", "medium")
    assert finding.evidence[0].value > finding.evidence[0].threshold == 1e-3
    assert measured(report).value == finding.evidence[0].value
    assert report.summary.verdict == "inconclusive"
    assert "differs from onnxruntime's" in report.gate.reason
    assert report.summary.headline.startswith("Forward pass differs from onnxruntime's")


def test_a_failure_outranks_a_difference():
    model = export(mlp(nn.Sigmoid, glorot, depth=20, width=16), torch.zeros(2, 16))
    report = checked(model, scripted(lambda y: y + 1))
    assert report.summary.verdict == "fail"
    assert "GF401" in {f.rule_id for f in report.findings}
    assert "inconclusive: the forward pass differs" in report.gate.reason


def test_a_remedy_is_not_credited_with_ending_a_difference():
    model = export(mlp(nn.Sigmoid, glorot, depth=20, width=16), torch.zeros(2, 16))
    options = AnalysisOptions(profile="quick")
    plain = analyze(model, options, runtime=in_process(model))
    report = analyze(model, options, runtime=scripted(lambda y: y + 1)(model))
    without, with_it = _drops(plain), _drops(report)
    both = without.keys() & with_it.keys()
    assert both
    # what raises the risk raises it by less, as another finding takes its share
    assert all(max(with_it[title], 0.0) <= max(without[title], 0.0) for title in both)


def _drops(report):
    told = ((r.title, v) for r in report.recommendations for v in r.verified if v.metric == "risk")
    return {title: v.before - v.after for title, v in told}


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda y: y * 1.0005, pytest.approx(5e-4, rel=1e-2)),
        (lambda y: y * np.float32(1.01), pytest.approx(9.9e-3, rel=1e-2)),
        (lambda y: np.where(y == y.max(), np.nan, y), None),
        (lambda y: np.where(y == y.max(), np.inf, y), None),
        (lambda y: y[:, :-1], None),
        (lambda y: y.astype(np.int64), None),
    ],
    ids=["rounding", "percent", "nan", "infinity", "shape", "type"],
)
def test_the_difference_is_relative_to_the_largest_output_and_infinite_where_kinds_differ(
    change, value
):
    report = checked(linear(), scripted(change))
    assert measured(report).value == value
    assert rule(report).status == ("passed" if value == 5e-4 else "failed")


def test_the_same_nans_and_infinities_on_both_sides_are_no_difference():
    nodes = [node("Log", "x", "h"), node("MatMul", "h W", "y")]
    report = checked(made(nodes, ROOM, "y", {"W": np.eye(8)}))
    assert rule(report).status == "passed"
    assert (
        reference._relative(
            np.array([math.nan, math.inf, -math.inf, 2.0]),
            np.array([math.nan, math.inf, -math.inf, 2.0]),
        )
        == 0
    )
    assert reference._relative(np.array([math.inf, 1.0]), np.array([-math.inf, 1.0])) == math.inf
    assert reference._relative(np.zeros(2), np.zeros(2)) == 0
    assert reference._relative(np.ones(2), np.zeros(2)) == math.inf


def test_a_network_that_amplifies_rounding_is_judged_by_its_own_rounding():
    """400 chaotic layers: float32 against float64 is off by half, so onnxruntime may be too."""
    nodes, stored, last = [], {}, "x"
    for i in range(400):
        nodes += [node("MatMul", f"{last} W{i}", f"m{i}"), node("Tanh", f"m{i}", f"t{i}")]
        rng = np.random.default_rng(i)
        stored[f"W{i}"], last = rng.normal(size=(32, 32)) * 3 / np.sqrt(32), f"t{i}"
    model = made(nodes, {"x": ["N", 32]}, last, stored)
    report = checked(model, engines=("sampled",))
    assert measured(report).value > reference.TOLERANCE
    assert "float32 alone differs from float64" in measured(report).note
    assert rule(report).status == "passed"


def test_batchnorm_is_compared_as_uploaded_though_it_is_sampled_by_the_batch():
    norm = {"s": np.full(8, 1.5), "b": np.ones(8), "m": np.zeros(8), "v": np.ones(8)}
    nodes = [node("MatMul", "x W", "h"), node("BatchNormalization", "h s b m v", "y")]
    report = checked(made(nodes, ROOM, "y", {"W": orthogonal(8, 0), **norm}))
    assert "W_UNTRAINED_BATCHNORM" in {w.code for w in report.warnings}
    assert measured(report).value < 1e-6


@pytest.mark.parametrize(
    ("nodes", "stored", "named"),
    [
        (["RandomNormalLike x r", "Add x r y"], {}, "RandomNormalLike at node r"),
        (["Dropout x|ratio|on y"], {"ratio": 0.5, "on": True}, "Dropout at node y"),
    ],
)
def test_what_draws_random_numbers_is_not_compared_and_says_so(nodes, stored, named):
    built = [
        node(op, ins.replace("|", " "), out)
        for op, ins, out in (
            (parts[0], " ".join(parts[1:-1]), parts[-1]) for parts in (n.split() for n in nodes)
        )
    ]
    kept = {k: np.array(v, np.float32 if k == "ratio" else bool) for k, v in stored.items()}
    model = made([*built, node("MatMul", "y W", "z")], ROOM, "z", {"W": orthogonal(8, 0), **kept})
    report = checked(model)
    (warning,) = [w for w in report.warnings if w.code == "W_FORWARD_NOT_COMPARED"]
    assert named in warning.message
    assert measured(report).value is None
    assert rule(report).status == "not_run"


def test_a_dropout_that_is_off_is_no_chance():
    stored = {"W": orthogonal(8, 0), "ratio": np.array(0.5, np.float32), "on": np.array(False)}  # noqa: FBT003
    nodes = [node("Dropout", "x ratio on", "d"), node("MatMul", "d W", "y")]
    assert rule(checked(made(nodes, ROOM, "y", stored))).status == "passed"


def test_outputs_that_are_no_floats_count_by_the_share_that_differs():
    nodes = [
        node("MatMul", "x W", "y"),
        node("ArgMax", "y", "best", axis=-1),
        node("Greater", "y zero", "positive"),
    ]
    stored = {"W": orthogonal(8, 0), "zero": np.zeros(1)}
    graph = onnx.load_model_from_string(made(nodes, ROOM, "y best positive", stored))
    graph.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    graph.graph.output[2].type.tensor_type.elem_type = TensorProto.BOOL
    model = graph.SerializeToString()
    assert rule(checked(model)).status == "passed"
    report = checked(model, scripted(lambda y: ~y if y.dtype == bool else y))
    assert "'positive'" in measured(report).note
    assert measured(report).value == 1.0
    assert rule(report).status == "failed"


def test_quantised_outputs_may_be_rounded_either_way():
    a = np.arange(200, dtype=np.uint8)
    assert reference._gap("y", a, a + 1).difference == 0
    assert reference._gap("y", a, a + 2).difference == 1
    assert reference._gap("y", a.astype(np.int64), a.astype(np.int64) + 1).difference == 1


def test_a_runtime_that_cannot_costs_no_analysis():
    def failing(_model):
        def answer():
            raise NotCompared("not_compared", "no kernel for it")

        return lambda *_: answer

    report = checked(linear(), failing)
    (warning,) = [w for w in report.warnings if w.code == "W_FORWARD_NOT_COMPARED"]
    assert warning.message.endswith("no kernel for it")
    assert report.summary.verdict == "pass"


def test_what_our_own_executor_lacks_is_not_compared():
    asked = []

    def never(_model):
        return asked.append

    graph = onnx.load_model_from_string(linear())
    graph.graph.node[1].domain, graph.graph.node[1].op_type = "elsewhere", "Mystery"
    graph.opset_import.add(domain="elsewhere", version=1)
    report = checked(graph.SerializeToString(), never)
    assert asked == []
    assert "Mystery" in measured(report).note
    assert report.summary.verdict == "inconclusive"


def test_the_inputs_are_the_first_that_the_sampled_engine_draws(monkeypatch):
    fed = {}

    def remember(_model):
        def start(_, inputs):
            fed.update(inputs)
            return lambda: [None]

        return start

    drawn = []
    real = executor.Executable.__call__

    def listen(self, *inputs, **named):
        drawn.append(inputs)
        return real(self, *inputs, **named)

    monkeypatch.setattr(executor.Executable, "__call__", listen)
    report = checked(linear(), remember)
    first = next(x for (x,) in drawn if isinstance(x, torch.Tensor) and len(x) == 32)
    np.testing.assert_array_equal(fed["x"], first[:8].detach().numpy())
    assert "no output is a tensor" in measured(report).note


def test_only_one_row_goes_where_eight_are_too_much(monkeypatch):
    monkeypatch.setattr(reference, "MOST_BYTES", 100)
    assert "1 inputs" in measured(checked(linear())).note
    monkeypatch.setattr(reference, "MOST_BYTES", 10)
    assert "over 10" in measured(checked(linear())).note
