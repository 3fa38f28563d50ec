"""Deep post-norm stacks: the papers' numbers, and torch's network of the same weights."""

import math

import onnx
import onnx_ir
import pytest
import torch

from gradgauge.assess import assess
from gradgauge.pipeline import load, plan
from gradgauge.remedy.patch import Redraw, apply
from gradgauge.remedy.stacks import DEEP_NORM, T_FIXUP, alpha_beta, blocks, fixup_gain
from gradgauge.schema.options import AnalysisOptions
from tests.handmade import made, node
from tests.remedy import networks as nets
from tests.remedy.test_table import run

STEPS, WIDTH, DEPTH = 10, 32, 6
SPEC = """
gradgauge: 1
input: {shape: [10], distribution: integers, high: 50}
SCHEME
layers:
  - {type: embedding, entries: 50, units: 32}
  - type: repeat
    times: 6
    layers:
      - type: residual
        layers: [{type: attention, heads: 4}]
      - {type: layer_norm}
      - type: residual
        layers:
          - {type: dense, units: 64}
          - {type: activation, function: relu}
          - {type: dense, units: 32}
      - {type: layer_norm}
  - {type: select, index: 0}
  - {type: dense, units: 4}
"""


def assessed(model):
    options = AnalysisOptions(profile="quick")
    graph, reading = load(model, options)
    return assess(graph, reading, plan(options, reading))


@pytest.fixture(scope="module")
def post():
    assessment = assessed(nets.attending(DEPTH, post=True, looking=10.0))
    return assessment, next(f for f in assessment.findings if f.rule_id == "GF102")


def weights_of(model):
    held = onnx_ir.to_proto(model).graph.initializer
    return {t.name: onnx.numpy_helper.to_array(t) for t in held}


def loaded(net, patch, model):
    """The torch network with the weights that the patch has drawn."""
    held = weights_of(model)
    ends = ("query", "key", "value", "output", "up", "down")
    drawn = [change.initializer for change in patch if isinstance(change, Redraw)]
    drawn = [name for name in drawn if held[name].ndim == 2]
    assert len(drawn) == len(ends) * DEPTH
    graph = onnx_ir.to_proto(model).graph
    names = {
        n.name.strip("/").split("/")[0]: n.input[1] for n in graph.node if n.op_type == "MatMul"
    }
    with torch.no_grad():
        for i in range(DEPTH):
            for end in ends:
                W = torch.tensor(held[names[f"{end}{i}"]])
                net.parts[f"{end}{i}"].weight.copy_(W.T)
                net.parts[f"{end}{i}"].bias.zero_()
    return net


def test_alpha_and_beta_are_those_of_the_papers_table():
    # Wang et al. 2022, table 1; a layer of an encoder is two blocks, of a decoder with it three
    for N in (6, 18, 100, 500):
        assert alpha_beta(2 * N) == pytest.approx(((2 * N) ** (1 / 4), (8 * N) ** (-1 / 4)))
    for M in (6, 18, 100):
        assert alpha_beta(3 * M) == pytest.approx(((3 * M) ** (1 / 4), (12 * M) ** (-1 / 4)))
    assert fixup_gain(6) == pytest.approx(0.67 * 6 ** (-1 / 4))


def test_deep_norm_makes_torchs_network_with_a_larger_stream(post):
    assessment, finding = post
    patch = DEEP_NORM.rewrite(assessment, finding)
    model = apply(assessment.graph.model, patch)
    alpha = (2 * DEPTH) ** (1 / 4)

    class Deep(nets.Transformer):
        def forward(self, x):
            for i, norm in enumerate(self.norms):
                branch = self.attend if i % 2 == 0 else self.think
                x = norm(alpha * x + branch(x, i // 2))
            return self.head(x.mean(1))

    net = loaded(Deep(DEPTH, post=True, looking=10.0), patch, model)
    x = torch.randn(3, STEPS, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert run(model, x.numpy()) == pytest.approx(net(x).numpy(), abs=1e-4)
    beta = (8 * DEPTH) ** (-1 / 4)
    for name, gain in (("query", 1.0), ("key", 1.0), ("value", beta), ("up", beta)):
        drawn = torch.stack([net.parts[f"{name}{i}"].weight.detach() for i in range(DEPTH)])
        # Glorot: variance 2 / (fan_in + fan_out)
        assert float(drawn.std()) == pytest.approx(gain * math.sqrt(2 / (2 * WIDTH)), rel=0.05)


def test_t_fixup_makes_torchs_network_without_norms(post):
    assessment, finding = post
    patch = T_FIXUP.rewrite(assessment, finding)
    model = apply(assessment.graph.model, patch)

    class Bare(nets.Transformer):
        def forward(self, x):
            for i in range(2 * DEPTH):
                branch = self.attend if i % 2 == 0 else self.think
                x = x + branch(x, i // 2)
            return self.head(x.mean(1))

    net = loaded(Bare(DEPTH, post=True, looking=10.0), patch, model)
    x = torch.randn(3, STEPS, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert run(model, x.numpy()) == pytest.approx(net(x).numpy(), abs=1e-4)
    gain = 0.67 * DEPTH ** (-1 / 4)
    for name, scale in (("query", 1.0), ("output", gain), ("down", gain)):
        drawn = torch.stack([net.parts[f"{name}{i}"].weight.detach() for i in range(DEPTH)])
        assert float(drawn.std()) == pytest.approx(scale * math.sqrt(2 / (2 * WIDTH)), rel=0.05)


@pytest.mark.parametrize(("row", "scheme"), [(DEEP_NORM, "deepnorm"), (T_FIXUP, "t-fixup")])
def test_the_laws_are_those_of_a_specs_scheme(post, row, scheme):
    assessment = assessed(SPEC.replace("SCHEME", "").encode())
    patch = row.rewrite(assessment, post[1])
    named = assessed(SPEC.replace("SCHEME", f"defaults: {{scheme: {scheme}}}").encode())
    laws = named.graph.laws
    drawn = {c.initializer: c.law for c in patch if isinstance(c, Redraw) and c.law.kind != "zeros"}
    matrices = {name for name in laws if name.endswith("weight") and "layers.1." in name}
    assert matrices <= set(drawn)
    for name in matrices:
        assert drawn[name].gain == pytest.approx(laws[name].gain)
        assert (drawn[name].fan_in, drawn[name].fan_out) == (laws[name].fan_in, laws[name].fan_out)
    if row is T_FIXUP:
        assert drawn["layers.0.weight"].scale == pytest.approx(laws["layers.0.weight"].scale)


def test_a_projection_that_makes_queries_keys_and_values_at_once_is_drawn_as_values():
    nodes = [
        node("MatMul", "x A", "qkv"),
        node("Split", "qkv", "q k v", axis=2),
        node("Transpose", "k", "t", perm=[0, 2, 1]),
        node("MatMul", "q t", "l"),
        node("Softmax", "l", "w"),
        node("MatMul", "w v", "m"),
        node("MatMul", "m O", "o"),
        node("Add", "x o", "s"),
        node("LayerNormalization", "s g", "n", axis=-1),
        node("MatMul", "n H", "y"),
    ]
    rng = torch.Generator().manual_seed(0)
    shapes = {"A": (8, 24), "O": (8, 8), "H": (8, 2), "g": (8,)}
    stored = {k: torch.randn(*v, generator=rng).double().numpy() for k, v in shapes.items()}
    (block,) = blocks(assessed(made(nodes, {"x": ["N", 5, 8]}, "y", stored, opset=17)))
    assert not block.looking
    assert [head.params[0] for head in block.passing] == ["A", "O"]
