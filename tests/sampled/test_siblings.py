"""Products of one matrix with many slices made in one: what is measured, and what stays apart."""

import numpy as np
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from gradgauge.errors import AnalysisFailed, LimitExceeded
from gradgauge.sampled.budget import Budget
from gradgauge.sampled.executor import compile_graph
from gradgauge.sampled.frame import feed
from gradgauge.sampled.looks import Looks
from gradgauge.sampled.passes import run_pass
from gradgauge.sampled.seen import Seen
from gradgauge.sampled.siblings import joined
from gradgauge.sampled.tally import Guarded, Tally
from gradgauge.sampled.watch import watch_plan
from tests.acceptance.fixtures import export, seeded
from tests.sampled.staged import staged

STEPS = 12


class Cells(nn.Module):
    """A cell written out, there and back, as a trace leaves it."""

    def __init__(self, cell, *, both: bool = False) -> None:
        super().__init__()
        self.cell, self.back = cell(5, 7), cell(5, 7) if both else None
        self.head = nn.Linear(7, 3)

    def forward(self, x):
        h = self.cell(x[:, 0])
        for t in range(1, STEPS):
            h = self.cell(x[:, t], h)
        if self.back is not None:
            g = self.back(x[:, STEPS - 1])
            for t in range(STEPS - 2, -1, -1):
                g = self.back(x[:, t], g)
            h = h + g
        return self.head(h)


class Apart(nn.Module):
    """Slices of time times a matrix without a bias, as `benchmarks` has them."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.u = nn.Linear(7, 7), nn.Linear(5, 7, bias=False)

    def forward(self, x):
        h = torch.tanh(self.u(x[:, 0]))
        for t in range(1, STEPS):
            h = torch.tanh(self.w(h) + self.u(x[:, t]))
        return h


def looked(case, exe, *, scarce=False):
    seen = {layer.id: Seen() for layer in case.layers}
    watch = watch_plan(case.model, case.layers)
    looks = Looks(case.frame, Guarded(), Tally(), seen, watch, scarce=scarce)
    run_pass(exe, case.layers, looks, case.reading, case.setting, 0)
    return seen


def families(exe):
    kept = joined(exe.steps, exe.initializers, exe.constants, exe.output_names)
    return [step.spread for step in kept if step.spread]


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (Cells(nn.RNNCell), 1),
        (Cells(nn.RNNCell, both=True), 0),
        (Cells(nn.GRUCell), 1),
        (Apart(), 1),
    ],
    ids=["rnn", "both ways", "gru", "no bias"],
)
def test_all_that_is_seen_of_layers_is_what_each_product_by_itself_shows(net, count):
    case, exe = staged(export(seeded(net, 3), torch.zeros(2, STEPS, 5)))
    assert len(families(exe)) == count
    one, each = looked(case, exe), looked(case, exe, scarce=True)
    for key, apart in each.items():
        for of in ("grads", "norms", "gains", "forward"):
            mine, theirs = getattr(one[key], of), getattr(apart, of)
            assert len(mine) == len(theirs), (key, of)
            for a, b in zip(mine, theirs, strict=True):
                assert a == pytest.approx(b, abs=1e-9, nan_ok=True), (key, of)
        for of in ("params", "means", "cosines", "saturated"):
            assert list(getattr(one[key], of)) == pytest.approx(
                list(getattr(apart, of)), abs=1e-9, nan_ok=True
            ), (key, of)
        assert one[key].elements == apart.elements
        assert one[key].added.keys() == apart.added.keys()


def test_gradients_of_joined_products_and_gains_through_them_are_those_of_torch():
    net = seeded(Apart(), 3)
    case, exe = staged(export(net, torch.zeros(2, STEPS, 5)))
    seen = looked(case, exe)
    generator = torch.Generator()
    (x,) = feed(exe, case.setting, case.reading, generator, 0)
    net, made = net.double(), []
    net.u.register_forward_hook(lambda _part, _x, y: made.append(y))
    slices = [x[:, t].detach().requires_grad_() for t in range(STEPS)]
    h = torch.tanh(net.u(slices[0]))
    for t in range(1, STEPS):
        h = torch.tanh(net.w(h) + net.u(slices[t]))
    sent = torch.randn(h.shape, generator=generator).double()
    grads = torch.autograd.grad(h, [*made, *slices], sent)
    products = [layer for layer in case.layers if layer.op == "MatMul"]
    assert len(products) == STEPS
    for layer, y, g, back in zip(products, made, grads[:STEPS], grads[STEPS:], strict=True):
        (held,) = seen[layer.id].grads
        assert held == pytest.approx(torch.log10(g.square().mean(1)).numpy() / 2, abs=1e-9)
        (gain,) = seen[layer.id].gains
        assert gain == pytest.approx(torch.log10(back.norm(dim=1) / g.norm(dim=1)).numpy())
        (size,) = seen[layer.id].forward
        assert size == pytest.approx(torch.log10(y.square().mean(1)).detach().numpy() / 2)


RNG = np.random.default_rng(2)
W = RNG.normal(size=(5, 7)).astype(np.float32)


def model(places, *, reads=(), weights=("w",) * 20, outputs=(), trans=0):
    """Slices of x at these places, each times a matrix, and the sum of it all."""
    stored = {name: W * (1 + i) for i, name in enumerate(sorted(set(weights) - {"made"}))}
    nodes, held = [], [numpy_helper.from_array(w, k) for k, w in stored.items()]
    if "made" in weights:
        held.append(numpy_helper.from_array(W, "first"))
        nodes.append(helper.make_node("Tanh", ["first"], ["made"]))
    sums = []
    for i, place in enumerate(places):
        held.append(numpy_helper.from_array(np.array(place), f"at{i}"))
        nodes += [
            helper.make_node("Gather", ["x", f"at{i}"], [f"s{i}"], axis=1),
            helper.make_node("Gemm", [f"s{i}", weights[i]], [f"p{i}"], transA=trans),
        ]
        sums.append(f"p{i}")
    sums += [f"r{i}" for i in reads]
    nodes += [helper.make_node("MatMul", [f"s{i}", "w"], [f"r{i}"]) for i in reads]
    nodes.append(helper.make_node("Sum", sums, ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5 if trans else 4, 12, 5])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", *outputs)]
    graph = helper.make_graph(nodes, "g", [x], ends, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        ({"places": range(12)}, [12]),
        ({"places": [11, -2, 3, 0, 5, 5, 1, 2, 4]}, [9]),
        ({"places": range(12), "weights": ["u", "w"] * 6}, []),
        ({"places": [*range(12), *range(8)], "weights": ["u"] * 12 + ["w"] * 8}, [12, 8]),
        ({"places": range(7)}, []),
        ({"places": range(12), "weights": ["made"] * 12}, []),
        ({"places": range(12), "reads": [0, 1]}, [10]),
        ({"places": range(12), "outputs": ["s3"]}, [11]),
        ({"places": range(12), "trans": 1}, []),
    ],
    ids=[
        "all",
        "in any order",
        "too few of each",
        "two matrices",
        "too few",
        "a matrix that is made",
        "slices read twice",
        "a slice given out",
        "turned",
    ],
)
def test_what_is_joined_runs_to_the_same_outputs(given, sizes):
    exe = compile_graph(onnx_ir.from_proto(model(**given)), dtype=torch.float64)
    spreads = families(exe)
    assert [len(slices) for slices, _ in spreads] == sizes
    x = torch.randn(
        5 if given.get("trans") else 4, 12, 5, generator=torch.Generator().manual_seed(1)
    ).double()
    expected = exe(x)
    came = []
    exe.intercept(exe.made, lambda _, y: y, lambda names, whole, parts: came.append((names, whole)))
    found = exe(x)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert len(came) == 2 * len(sizes)
    for names, whole in came:
        assert len(names) == len(whole)


def test_only_what_is_asked_for_is_named_and_an_edge_looked_at_apart_keeps_all_apart():
    exe = compile_graph(onnx_ir.from_proto(model(range(12))), dtype=torch.float64)
    x = torch.ones(4, 12, 5).double()
    came = []
    exe.intercept({"s1", "p2"}, lambda _, y: y, lambda names, whole, parts: came.append(names))
    exe(x)
    assert [{*names} for names in came] == [{"s1", ""}, {"p2", ""}]
    came.clear()
    exe.watch_edges([("p4", 0)])
    exe(x)
    assert not came
    exe.watch_edges(())
    exe.watch(["s1"])
    exe(x)
    assert not came
    assert torch.equal(exe.watched["s1"], x[:, 1])


def test_joined_products_count_against_a_budget():
    budget = Budget(live_bytes=1 << 20)
    exe = compile_graph(onnx_ir.from_proto(model(range(12))), dtype=torch.float64, budget=budget)
    exe.intercept((), lambda _, y: y)
    exe(torch.ones(4, 12, 5).double())
    held = exe.live_bytes
    exe.intercept(exe.made, lambda _, y: y, lambda names, whole, parts: None)
    exe(torch.ones(4, 12, 5).double())
    assert exe.live_bytes == held + 12 * 8  # the places are not read, so none is let go of
    exe.limit(Budget(output_bytes=12 * 4 * 7 * 8 - 1))
    with pytest.raises(LimitExceeded, match="bytes, the limit is"):
        exe(torch.ones(4, 12, 5).double())


def test_a_matrix_without_elements_is_left_to_each_product():
    exe = compile_graph(onnx_ir.from_proto(model(range(12))), dtype=torch.float64)
    assert len(families(exe)) == 1
    empty = {"w": torch.zeros(0, 7)}
    assert joined(exe.steps, empty, exe.constants, exe.output_names) == list(exe.steps)


@pytest.mark.parametrize("place", [12, -13])
def test_a_place_outside_is_refused_as_by_a_slice_alone(place):
    exe = compile_graph(onnx_ir.from_proto(model([*range(11), place])), dtype=torch.float64)
    x = torch.ones(4, 12, 5).double()
    for many in (None, lambda names, whole, parts: None):
        exe.intercept(exe.made, lambda _, y: y, many)
        with pytest.raises(AnalysisFailed) as fault:
            exe(x)
        assert fault.value.code == "execution_failed"
