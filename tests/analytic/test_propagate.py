"""The engine on whole networks: every layer's numbers against float64 autograd."""

import functools
import itertools
import math
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

from gradgauge.analytic.pointwise import LONGEST
from gradgauge.analytic.propagate import profile
from gradgauge.graph.layers import find_layers
from gradgauge.graph.reading import InputPlan, Reading
from tests.agreement.families import Encoder
from tests.analytic.autograd import analyse, compare, export, seeded, to_graph
from tests.handmade import made, node


def drawn(make, seed):
    """A network whose every weight comes from `seed`, whatever ran before."""
    with torch.random.fork_rng():
        torch.random.manual_seed(seed)
        return make()


def mlp(act, law, *, depth, width, seed=0):
    generator = seeded(seed)
    modules = []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        law(layer.weight, generator)
        nn.init.zeros_(layer.bias)
        modules += [layer, act()]
    return nn.Sequential(*modules, nn.Linear(width, 10))


def he(w, generator):
    nn.init.kaiming_normal_(w, generator=generator)


def glorot(w, generator):
    nn.init.xavier_uniform_(w, generator=generator)


def normal(scale):
    return lambda w, g: nn.init.normal_(w, 0, scale / math.sqrt(w.shape[1]), generator=g)


FIELDS = ("act", "param", "forward")
MLPS = {
    "relu he": (nn.ReLU, he, 30),
    "relu 3.6 he": (nn.ReLU, normal(3.6 * math.sqrt(2)), 30),
    "relu half he": (nn.ReLU, normal(math.sqrt(0.5)), 20),
    "tanh glorot": (nn.Tanh, glorot, 50),
    "tanh chaotic": (nn.Tanh, normal(1.5), 40),
    "sigmoid glorot": (nn.Sigmoid, glorot, 50),
    "silu he": (nn.SiLU, he, 20),
    "selu lecun": (nn.SELU, normal(1.0), 30),
}


def test_mlp_gradients_agree_with_autograd_from_vanishing_to_exploding():
    found = []
    for (name, (act, law, depth)), seed in itertools.product(MLPS.items(), (0, 1)):
        make = functools.partial(mlp, act, law, depth=depth, width=256, seed=seed)
        errors = compare(drawn(make, seed), torch.randn(64, 256, generator=seeded(seed + 7)))
        errors.show(f"mlp {name} {depth}x256 seed {seed}")
        assert errors.act.median() <= 0.1, name
        found.append(errors)
    act, param, forward = (torch.cat([getattr(e, k) for e in found]) for k in FIELDS)
    # What is left is the scatter of one draw of the weights: .217 sqrt(5 depth / width) = .17
    # decades at the first of 30 ReLU layers.
    assert act.median() <= 0.05
    assert act.max() <= 0.2
    assert param.median() <= 0.1
    assert param.max() <= 0.25
    assert forward.max() <= 0.25


class Block(nn.Module):
    def __init__(self, c, out, stride):
        super().__init__()
        self.a = nn.Conv2d(c, out, 3, stride, 1, bias=False)
        self.b = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.m, self.n = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        changed = stride > 1 or c != out
        self.skip = (
            nn.Sequential(nn.Conv2d(c, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if changed
            else nn.Identity()
        )

    def forward(self, x):
        h = self.n(self.b(functional.relu(self.m(self.a(x)))))
        return functional.relu(h + self.skip(x))


def resnet():
    widths = [24, 48, 96]
    blocks = [nn.Conv2d(3, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    for c, out in itertools.pairwise([24, *widths]):
        blocks += [Block(c, out, 1 if c == out else 2), Block(out, out, 1)]
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10))


def cnn(act, *, norm, width=64, depth=10):
    modules = []
    for i in range(depth):
        conv = nn.Conv2d(3 if i == 0 else width, width, 3, 2 if i == 4 else 1, 1)
        nn.init.kaiming_normal_(conv.weight)
        nn.init.zeros_(conv.bias)
        modules += [conv, nn.BatchNorm2d(width) if norm else nn.Identity(), act()]
    return nn.Sequential(*modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


IMAGES = {
    "cnn relu": (lambda: cnn(nn.ReLU, norm=False), False),
    "cnn tanh": (lambda: cnn(nn.Tanh, norm=False), False),
    "cnn relu batch norm": (lambda: cnn(nn.ReLU, norm=True), True),
    "resnet batch norm": (resnet, True),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_networks_agree_with_autograd(name):
    make, train = IMAGES[name]
    net = drawn(make, 3)
    errors = compare(net, torch.randn(24, 3, 20, 20, generator=seeded(5)), train=train)
    errors.show(name)
    assert errors.act.median() <= 0.15
    assert errors.act.max() <= 0.25
    assert errors.param.median() <= 0.2


class Transformer(nn.Module):
    def __init__(self, d=64, depth=4, *, pre=True, pooled=True, causal=False):
        super().__init__()
        kind = {"pre": pre, "causal": causal, "act": functional.gelu, "norm": nn.LayerNorm}
        blocks = (Encoder(d, 4, **kind) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head, self.pooled = nn.LayerNorm(d), nn.Linear(d, 10), pooled

    def forward(self, x):
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.pooled else x)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("pre", [True, False])
def test_transformers_agree_with_autograd(pre, pooled):
    net = drawn(lambda: Transformer(pre=pre, pooled=pooled), 1)
    errors = compare(net, torch.randn(24, 12, 64, generator=seeded(2)))
    errors.show(f"transformer {'pre' if pre else 'post'}-LN, {'pooled' if pooled else 'tokens'}")
    assert errors.act.median() <= 0.1
    assert errors.act.max() <= 0.25
    assert errors.param.median() <= 0.15


def test_a_causal_mask_is_seen_by_softmax():
    net = drawn(lambda: Transformer(pooled=False, causal=True), 1)
    errors = compare(net, torch.randn(24, 12, 64, generator=seeded(2)))
    errors.show("transformer pre-LN, causal")
    assert errors.act.median() <= 0.05
    assert errors.act.max() <= 0.2
    assert errors.param.median() <= 0.1


class LayerNormed(nn.Module):
    def __init__(self, width=128, depth=12):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = torch.relu(norm(layer(x)))
        return x


def test_a_layer_normed_mlp_agrees_with_autograd():
    net = drawn(LayerNormed, 4)
    errors = compare(net, torch.randn(64, 128, generator=seeded(6)))
    errors.show("mlp layer norm")
    assert errors.act.median() <= 0.1
    assert errors.act.max() <= 0.25


def test_gradients_far_below_the_smallest_double_keep_their_decades():
    depth, width = 900, 16
    weights = [
        numpy_helper.from_array((torch.eye(width) * 0.1).numpy(), f"w{i}") for i in range(depth)
    ]
    nodes = [
        helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"], name=f"n{i}")
        for i in range(depth)
    ]
    shape = ["N", width]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("h0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(f"h{depth}", TensorProto.FLOAT, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    layers, got = analyse(model)
    # x -> 0.1 x, 899 times between the first layer's output and the graph's.
    first = got.layers[layers[0].id]
    assert first.log10_grad_act == pytest.approx(-899.0, abs=1e-4)
    assert first.chi == pytest.approx(0.01, rel=1e-6)
    assert first.backward_gain == pytest.approx(0.1, rel=1e-6)
    assert first.depth_scale == pytest.approx(1 / math.log(100), rel=1e-6)


def test_an_op_without_an_implementation_leaves_the_layers_before_it_their_forward():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    model = export(net, torch.randn(2, 8))
    known = analyse(model)
    node = next(n for n in model.graph.node if n.op_type == "Tanh")
    node.op_type, node.domain = "Unheard", "example.com"
    model.opset_import.append(helper.make_opsetid("example.com", 1))
    layers, got = analyse(model)
    first, last = got.layers[layers[0].id], got.layers[layers[-1].id]
    assert first.log10_grad_act is None
    assert first.forward_rms == known[1].layers[known[0][0].id].forward_rms
    assert "gradient_passes_an_unsupported_op" in first.assumptions
    assert last.method == "not_supported"
    assert got.nodes_covered == len(model.graph.node) - 2


def test_ops_without_a_rule_are_probed_and_say_so():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2), nn.Flatten())
    layers, got = analyse(export(net, torch.randn(2, 3, 16, 16)))
    methods = {layer.op: got.layers[layer.id].method for layer in layers}
    assert methods == {"Conv": "exact_moments", "MaxPool": "probed"}
    pool = next(got.layers[layer.id] for layer in layers if layer.op == "MaxPool")
    # One of four receives the gradient: G / 4 per element, the same squared norm.
    assert pool.chi == pytest.approx(1.0, rel=0.05)
    assert pool.backward_gain == pytest.approx(0.5, rel=0.05)


def test_the_band_grows_towards_the_input_as_inverse_widths_add_up():
    layers, got = analyse(export(mlp(nn.ReLU, he, depth=5, width=50), torch.randn(2, 50)))
    bands = [got.layers[layer.id].band_decades for layer in layers if layer.kind == "linear"]
    want = [0.217 * math.sqrt(5 * k / 50) for k in range(5, -1, -1)]
    assert bands == pytest.approx(want)


def test_a_shared_token_table_is_an_embedding_with_a_gradient():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(50, 32), nn.Linear(32, 5)

        def forward(self, ids):
            return self.head(self.table(ids).mean(1))

    net = drawn(Tokens, 0)
    ids = torch.randint(0, 50, (512, 16), generator=seeded(1))
    model = export(net, ids[:2])
    layers, got = analyse(model)
    row = next(got.layers[layer.id] for layer in layers if layer.kind == "embedding")
    y = net.double()(ids)
    y.backward(torch.randn(y.shape, generator=seeded(2), dtype=torch.float64))
    per_input = float(net.table.weight.grad.square().mean()) / 512
    assert row.log10_grad_param == pytest.approx(0.5 * math.log10(per_input), abs=0.1)
    rms = float(net.table.weight.detach().square().mean().sqrt())
    assert row.forward_rms == pytest.approx(rms, rel=1e-5)
    assert row.log10_grad_ratio == pytest.approx(row.log10_grad_param - math.log10(rms), abs=1e-6)


def test_inputs_may_be_data_masks_or_drawn_indices():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(20, 64), nn.Linear(64, 64)

        def forward(self, x, ids, mask):
            return self.head(x * mask.unsqueeze(-1).to(x.dtype) + self.table(ids))

    net = drawn(Mixed, 0)
    generator = seeded(1)
    data = 3 + 0.1 * torch.randn(40, 6, 64, generator=generator)
    ids = torch.randint(0, 20, (40, 6), generator=generator)
    mask = torch.ones(40, 6, dtype=torch.int64)
    model = export(net, (data[:2], ids[:2], mask[:2]), names=("x", "ids", "mask"))
    graph = to_graph(model)
    dims = {"x": (None, 6, 64), "ids": (None, 6), "mask": (None, 6)}
    kinds = {"x": "data", "ids": "integers", "mask": "ones"}
    plans = {
        name: InputPlan(
            name,
            kinds[name],
            dims[name],
            onnx_ir.DataType.FLOAT if name == "x" else onnx_ir.DataType.INT64,
            0,
            high=20,
            data=data.numpy() if name == "x" else None,
        )
        for name in dims
    }
    layers = find_layers(graph.model)
    got = profile(graph, layers, Reading(plans, batch_statistics=False))
    head = next(got.layers[layer.id] for layer in layers if layer.kind == "linear")
    want = float(net(data, ids, mask).detach().square().mean().sqrt())
    assert head.forward_rms == pytest.approx(want, rel=0.15)
    whole = {
        name: replace(plan, kind="data", data=v.numpy())
        for (name, plan), v in zip(plans.items(), (data, ids, mask), strict=True)
    }
    again = profile(graph, layers, Reading(whole, batch_statistics=False))
    head = next(again.layers[layer.id] for layer in layers if layer.kind == "linear")
    assert head.forward_rms == pytest.approx(want, rel=0.15)


def dense(*, turned: bool):
    """y = x W, with W stored as it is or behind a Transpose."""
    W = numpy_helper.from_array(
        torch.randn(24, 40, generator=seeded(3)).numpy()
        if not turned
        else torch.randn(24, 40, generator=seeded(3)).T.contiguous().numpy(),
        "W",
    )
    nodes = [helper.make_node("Transpose", ["W"], ["V"], "turn", perm=[1, 0])] if turned else []
    nodes.append(helper.make_node("MatMul", ["x", "V" if turned else "W"], ["y"], "product"))
    x, y = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k])
        for n, k in (("x", 24), ("y", 40))
    )
    return helper.make_model(
        helper.make_graph(nodes, "dense", [x], [y], [W]),
        opset_imports=[helper.make_opsetid("", 17)],
    )


def test_a_transposed_weight_has_the_gradient_of_the_weight_itself():
    plain, turned = (analyse(dense(turned=t)) for t in (False, True))
    mine = [r.log10_grad_param for r in turned[1].layers.values() if r.log10_grad_param is not None]
    want = [r.log10_grad_param for r in plain[1].layers.values() if r.log10_grad_param is not None]
    assert mine == pytest.approx(want, abs=1e-12)
    assert len(mine) == len(turned[0]) == 1


class Erf(nn.Module):
    """GELU written out, between scalars before and after it."""

    def forward(self, x):
        held = 3.0 * x - 0.5
        return 0.25 - 2.0 * (held * 0.5 * (1.0 + torch.erf(held / math.sqrt(2.0))))


def test_an_activation_written_out_has_the_moments_of_the_whole_function():
    net = nn.Sequential(nn.Linear(96, 96), Erf(), nn.Linear(96, 8))
    for p in net.parameters():
        nn.init.normal_(p, 0, 0.1, generator=seeded(5))
    model = export(net, torch.zeros(2, 96))
    layers, found = analyse(model)
    ends = [layer for layer in layers if layer.kind == "linear"]
    rms = [found.layers[layer.id].forward_rms for layer in ends]
    gain = found.layers[ends[-1].id].forward_gain
    x = torch.randn(1 << 15, 96, generator=seeded(6))
    with torch.no_grad():
        want = [float(net[:k](x).square().mean().sqrt()) for k in (1, 2, 3)]
    assert [rms[0], rms[-1] / gain, rms[-1]] == pytest.approx(want, rel=0.01)


def gated(times):
    """x times its own sigmoid, over and over: one function of x with 2 ** times paths through."""
    nodes = []
    for i in range(times):
        nodes += [node("Sigmoid", f"h{i}", f"s{i}"), node("Mul", f"h{i} s{i}", f"h{i + 1}")]
    return model([node("Tanh", "x", "h0"), *nodes], f"h{times}")


def model(nodes, output, **stored):
    return onnx.load_from_string(made(nodes, {"x": ["N", 4]}, output, stored))


def test_a_function_that_reads_itself_twice_at_every_step_is_evaluated_once_a_step():
    _, found = analyse(gated(40))
    x = torch.randn(1 << 17, generator=seeded(9), dtype=torch.float64).tanh()
    for _ in range(40):
        x = x * x.sigmoid()
    ends = list(found.layers.values())
    assert found.nodes_covered == 81
    assert ends[-1].forward_rms == pytest.approx(float(x.square().mean().sqrt()), rel=0.01)


def test_a_function_of_too_many_nodes_is_followed_to_its_limit_unless_it_is_a_line():
    steps = 2 * LONGEST
    names = ["x", *(f"h{i}" for i in range(steps))]
    bent = [node("Relu", names[i], names[i + 1]) for i in range(steps)]
    _, found = analyse(model(bent, names[-1]))
    assert found.nodes_covered == LONGEST
    lines = [node("Add", f"{names[i]} one", names[i + 1]) for i in range(steps)]
    lines.append(node("Tanh", names[-1], "y"))
    layers, found = analyse(model(lines, "y", one=np.array(1.0)))
    assert found.nodes_covered == steps + 1
    assert found.layers[layers[-1].id].forward_rms == pytest.approx(1.0, abs=1e-6)
