"""Every rule fires on a network made for it, is silent on healthy ones, and knows its origin."""

import math
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from gradgauge.pipeline import analyze
from gradgauge.risk.case import Draft
from gradgauge.risk.findings import RULES, _finding
from gradgauge.schema.options import AnalysisOptions
from tests.acceptance.fixtures import LastStep, export, glorot, he, mlp, seeded
from tests.handmade import made, node, orthogonal

QUICK = AnalysisOptions(profile="quick", remediate=False)
WIDTH = 32


def analysed(model, **options):
    return analyze(model, AnalysisOptions(profile="quick", remediate=False, **options))


def net(act, factor, *, depth=10):
    return export(mlp(act, factor, depth=depth, width=WIDTH), torch.zeros(2, WIDTH))


def relu_net(change):
    found = mlp(nn.ReLU, he(), depth=8, width=WIDTH)
    with torch.no_grad():
        change(found)
    return export(found, torch.zeros(2, WIDTH))


def kill(found):
    found[6].bias.fill_(-100.0)


def repeat(found):
    found[6].weight.copy_(found[6].weight[:1].expand(WIDTH, WIDTH))


def break_(found):
    found[6].weight[0, 0] = math.nan


def large(found):
    for part in found:
        if isinstance(part, nn.Linear):
            part.weight.mul_(20.0)


def cut():
    """A matrix of zeros between others, without an activation."""
    stored = {"A": orthogonal(8, 0), "Z": np.zeros((8, 8)), "b": np.ones(8), "B": orthogonal(8, 1)}
    nodes = [
        node("MatMul", "x A", "a"),
        node("MatMul", "a B", "c"),
        node("Gemm", "c Z b", "z"),
        node("MatMul", "z B", "y"),
    ]
    return made(nodes, {"x": ["N", 8]}, "y", stored)


def loud_rnn():
    found = LastStep(seed=0)
    with torch.no_grad():
        found.rnn.weight_hh_l0.copy_(2.5 * torch.eye(32))
        found.rnn.weight_ih_l0.mul_(1e-20)  # so that tanh stays at its slope of 1
        found.rnn.bias_hh_l0.zero_()
        found.rnn.bias_ih_l0.zero_()
    return export(found, torch.zeros(2, 30, 8))


def hidden():
    """Deep sigmoids behind a head of zeros, so that no gradient shows how they vanish."""
    found = mlp(nn.Sigmoid, glorot, depth=30, width=WIDTH)
    with torch.no_grad():
        found[-1].weight.zero_()
    return export(found, torch.zeros(2, WIDTH))


def oversized(found):
    found[6].weight.mul_(30.0)


def saturating():
    found = mlp(nn.Tanh, glorot, depth=4, width=WIDTH)
    with torch.no_grad():
        large(found)
    return export(found, torch.zeros(2, WIDTH))


SICK = {
    "GF101": lambda: net(nn.Sigmoid, glorot),
    "GF102": lambda: net(nn.ReLU, he(4.0)),
    "GF103": lambda: export(LastStep(seed=0), torch.zeros(2, 60, 8)),
    "GF104": loud_rnn,
    "GF105": cut,
    "GF201": lambda: relu_net(kill),
    "GF202": saturating,
    "GF203": lambda: relu_net(repeat),
    "GF501": hidden,
    "GF301": lambda: relu_net(break_),
    "GF302": lambda: relu_net(oversized),
}
HEALTHY = {
    "relu": lambda: net(nn.ReLU, he()),
    "tanh": lambda: net(nn.Tanh, glorot, depth=4),
    "rnn": lambda: export(LastStep(seed=0), torch.zeros(2, 4, 8)),
}


# GF401 needs another runtime beside: tests/sampled/test_reference.py
@pytest.mark.parametrize("rule", [rule.id for rule in RULES if rule.id != "GF401"])
def test_every_rule_has_a_network_on_which_it_fires(rule):
    report = analysed(SICK[rule]())
    assert rule in {f.rule_id for f in report.findings}
    assert next(c for c in report.checks if c.rule_id == rule).status == "failed"
    # a layer that stands out is no alarm by itself; with one of identical units it trains
    assert report.summary.verdict == {"GF302": "pass", "GF203": "pass"}.get(rule, "fail")


@pytest.mark.parametrize("name", HEALTHY)
def test_no_rule_fires_on_a_healthy_network_and_every_one_says_what_came_of_it(name):
    report = analysed(HEALTHY[name]())
    assert report.findings == []
    assert report.summary.verdict == "pass"
    assert [c.rule_id for c in report.checks] == [rule.id for rule in RULES]
    assert {c.status for c in report.checks} <= {"passed", "not_applicable", "not_run"}
    assert all(c.reason for c in report.checks if c.status != "passed")


@pytest.mark.parametrize(
    ("rule", "change"), [("GF201", kill), ("GF203", repeat), ("GF301", break_)]
)
def test_the_origin_is_the_layer_that_was_changed(rule, change):
    report = analysed(relu_net(change))
    by_id = {layer.id: layer.name for layer in report.layers}
    found = next(f for f in report.findings if f.rule_id == rule)
    assert [by_id[o] for o in found.origins] == ["/6/Gemm"]


def test_relu6_is_a_rectifier_whose_dead_units_count():
    class Six(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 4)
            with torch.no_grad():
                self.a.bias.fill_(-100.0)

        def forward(self, x):
            return self.b(nn.functional.relu6(self.a(x)))

    report = analysed(export(Six(), torch.zeros(2, 8)))
    assert "Clip" in {layer.op for layer in report.layers}
    assert "GF201" in {f.rule_id for f in report.findings}


def test_a_narrow_relu_layer_that_is_silent_for_some_inputs_is_not_called_non_finite():
    report = analysed(export(mlp(nn.ReLU, he(), depth=3, width=4), torch.zeros(2, 4)))
    assert "GF301" not in {f.rule_id for f in report.findings}


class Residual(nn.Module):
    """Branches that start at zero in three ways people use, and a head."""

    def __init__(self, how, depth=4, width=WIDTH) -> None:
        super().__init__()
        self.how = how
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        self.gates = nn.ParameterList(torch.ones(width) for _ in range(depth))
        self.head = nn.Linear(width, 5)
        seeded(self, 0)
        with torch.no_grad():
            for i in range(depth):
                {
                    "weights": lambda i=i: (
                        self.second[i].weight.zero_(),
                        self.second[i].bias.zero_(),
                    ),
                    "gate": lambda i=i: self.gates[i].zero_(),
                    "norm": lambda i=i: self.norms[i].weight.zero_(),
                    "head": lambda: (self.head.weight.zero_(), self.head.bias.zero_()),
                }[how]()

    def forward(self, x):
        for a, b, norm, gate in zip(self.first, self.second, self.norms, self.gates, strict=True):
            y = b(torch.relu(a(x)))
            x = x + gate * (norm(y) if self.how == "norm" else y)
        return self.head(x)


@pytest.mark.parametrize("how", ["weights", "gate", "norm"])
def test_residual_branches_that_start_at_zero_raise_no_alarm(how):
    report = analysed(export(Residual(how), torch.zeros(2, WIDTH)))
    inner = [r for r in report.layers if r.op == "Gemm" and r.sampled.zero_gradient]
    assert inner
    assert report.findings == []
    assert report.summary.verdict == "pass"


def test_a_head_that_starts_at_zero_is_told_and_what_it_hides_is_neither_alarm_nor_pass():
    report = analysed(export(Residual("head"), torch.zeros(2, WIDTH)))
    assert report.summary.verdict == "inconclusive"
    assert report.coverage.params_covered < 0.05 * report.coverage.params_total
    assert "1 Gemm layer (/head/Gemm) starts at zero" in report.summary.headline
    (found,) = report.findings
    assert (found.rule_id, found.severity) == ("GF105", "low")
    by_id = {layer.id: layer.name for layer in report.layers}
    assert [by_id[o] for o in found.origins] == ["/head/Gemm"]
    assert "cannot be judged" in found.message


def test_a_network_that_vanishes_behind_a_head_of_zeros_is_found_by_its_probability_alone():
    report = analysed(hidden())
    assert report.coverage.params_covered < 0.1 * report.coverage.params_total
    assert [f.rule_id for f in report.findings if f.severity != "low"] == ["GF501"]
    assert "inconclusive" in report.gate.reason
    without = analysed(hidden(), engines=["sampled"])  # and so without a probability
    assert without.summary.verdict == "inconclusive"
    assert not without.gate.passed


def test_the_headline_of_a_lower_coverage_counts_the_layers_that_were_judged():
    model = export(Residual("head"), torch.zeros(2, WIDTH))
    report = analysed(model, min_coverage=0.0)
    assert report.summary.verdict == "pass"
    assert report.summary.headline.endswith("across 1 parameter layer")


def test_a_head_of_zeros_over_zeros_never_learns_and_is_an_alarm():
    """Every matrix zero: the head's own gradient is its input times the cotangent, zero too."""
    stored = {"A": np.zeros((8, 8)), "B": np.zeros((8, 8))}
    nodes = [node("MatMul", "x A", "a"), node("MatMul", "a B", "y")]
    report = analysed(made(nodes, {"x": ["N", 8]}, "y", stored))
    assert report.summary.verdict == "fail"
    assert report.findings[0].rule_id == "GF105"


def test_biases_whose_gradient_is_structurally_zero_raise_no_alarm():
    """A key's bias moves all scores of a query alike; a norm takes off a bias before it."""

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))
            self.norm, self.head = nn.BatchNorm1d(16), nn.Linear(16, 4)
            seeded(self, 3)

        def forward(self, x):
            weights = (self.q(x) @ self.k(x).transpose(1, 2) / 4).softmax(-1)
            return self.head(self.norm((weights @ self.v(x)).mean(1)))

    x = torch.randn(8, 6, 16, dtype=torch.float64)
    native = Attention().double()
    (grad,) = torch.autograd.grad(native(x).square().sum(), native.k.bias)
    assert grad.abs().max() < 1e-12
    report = analysed(export(Attention(), torch.zeros(2, 6, 16), training=True))
    assert report.findings == []


def test_equal_zero_biases_that_the_exporter_stores_once_are_no_tie():
    model = net(nn.ReLU, he())
    names = [n.input[2] for n in onnx.load_from_string(model).graph.node if n.op_type == "Gemm"]
    stored = {t.name for t in onnx.load_from_string(model).graph.initializer}
    assert len(set(names) & stored) < len(names)  # the exporter did
    assert analysed(model).findings == []


def test_a_model_without_any_parameter_layer_is_inconclusive_not_safe():
    model = made([node("Add", "x w", "y")], {"x": ["N", 4]}, "y", {"w": np.ones(4)})
    report = analysed(model)
    assert report.summary.verdict == "inconclusive"
    assert "gradient is known" in report.summary.headline


def test_one_origin_and_none_are_told_in_grammar():
    model = relu_net(lambda found: found[6].weight.mul_(1e-4))
    told = next(f.message for f in analysed(model).findings if f.rule_id == "GF101")
    assert "1 Gemm layer (/6/Gemm) passes on" in told
    # 0.9 a layer: below the floor of an origin, and yet three decades in the end
    slow = [0.93 * orthogonal(16, i) for i in range(90)]
    nodes = [node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(90)]
    stored = {f"W{i}": W for i, W in enumerate(slow)}
    report = analysed(made(nodes, {"x": ["N", 16]}, "h89", stored))
    told = next(f.message for f in report.findings if f.rule_id == "GF101")
    assert "no layer stands out" in told


def test_a_fingerprint_follows_the_graphs_order_and_not_that_of_the_list():
    layers = {key: SimpleNamespace(scope=f"/{key}") for key in ("a", "b", "c")}

    def printed(*origins):
        draft = Draft("high", "", origins, (), (), 0.9)
        return _finding(1, RULES[0], draft, SimpleNamespace(layers=layers)).fingerprint

    assert printed("a", "b", "c") == printed("c", "b", "a") == printed("a")
    assert len({printed("a"), printed("b"), printed("c", "b"), printed()}) == 3
