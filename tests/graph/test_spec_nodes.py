"""Gates, branches and remembered values of a spec, run by onnxruntime."""

import pytest
import torch
from torch import nn

from tests.specs import batch, built, held, layer, weight

F = nn.functional
NORMAL = {"kind": "normal", "std": 0.3}


def test_axes_are_permuted_behind_the_batch():
    graph = built((4, 6, 2), layer("permute", axes=[2, 0, 1]))
    x = batch(graph)
    held(graph, x, torch.from_numpy(x).permute(0, 3, 1, 2))


PHI = {
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
    "relu": F.relu,
    "gelu": F.gelu,
    "swish": F.silu,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("shape", [(6,), (4, 6)])
@pytest.mark.parametrize("function", PHI)
def test_a_gated_layer_is_its_function_of_one_projection_times_another(function, shape):
    graph = built(shape, layer("gated", units=5, function=function, init={"bias": NORMAL}))
    x = batch(graph)
    gate, value = (
        torch.from_numpy(x) @ (W.T if len(shape) == 1 else W) + weight(graph, f"{part}.bias")
        for part in ("layers.0.gate", "layers.0.value")
        for W in [weight(graph, f"{part}.weight")]
    )
    held(graph, x, PHI[function](gate) * value)


def test_a_glu_is_torchs():
    graph = built((6,), layer("gated", units=5))
    x = batch(graph)
    halves = [weight(graph, f"layers.0.{part}.weight") for part in ("value", "gate")]
    held(graph, x, F.glu(torch.from_numpy(x) @ torch.cat(halves).T))


def test_an_approximate_gelu_gates():
    graph = built((6,), layer("gated", units=5, function="gelu", approximate="tanh"))
    x = batch(graph)
    gate, value = (
        torch.from_numpy(x) @ weight(graph, f"layers.0.{part}.weight").T
        for part in ("gate", "value")
    )
    held(graph, x, F.gelu(gate, approximate="tanh") * value)


def test_branches_are_merged():
    twice, thrice = (
        [layer("dense", units=5, bias=False, init={"weight": {"kind": "identity", "gain": g}})]
        for g in (2, 3)
    )
    wanted = {
        "add": 6,
        "multiply": None,
        "average": 2,
        "maximum": None,
        "minimum": None,
        "concat": None,
    }
    for merge, factor in wanted.items():
        graph = built((5,), layer("parallel", branches=[[], twice, thrice], merge=merge))
        x = batch(graph)
        t = torch.from_numpy(x)
        three = torch.stack([t, 2 * t, 3 * t])
        folded = {
            "multiply": three.prod(0),
            "maximum": three.amax(0),
            "minimum": three.amin(0),
            "concat": torch.cat(list(three), -1),
        }
        held(graph, x, folded[merge] if factor is None else factor * t)
    graph = built((5,), layer("parallel", branches=[twice, thrice], merge="subtract"))
    x = batch(graph)
    held(graph, x, -torch.from_numpy(x))


@pytest.mark.parametrize(("shape", "given", "axis"), [((3, 4), {}, 2), ((3, 4, 5), {}, 1)])
def test_a_concat_joins_features_or_channels(shape, given, axis):
    graph = built(shape, layer("parallel", branches=[[], []], merge="concat", **given))
    x = batch(graph)
    held(graph, x, torch.cat([torch.from_numpy(x)] * 2, axis))


def test_a_learned_scale_is_a_weight_and_a_shortcuts_scale_is_not():
    branch = [layer("dense", units=5, init={"weight": {"kind": "identity", "gain": 3}})]
    made = layer("residual", layers=branch, scale=0.5, learned_scale=True, shortcut_scale=2)
    graph = built((5,), made)
    x = batch(graph)
    held(graph, x, torch.from_numpy(3.5 * x))
    assert weight(graph, "layers.0.scale").shape == (1,)


def test_a_remembered_value_is_recalled():
    graph = built(
        (5,),
        layer("remember", name="x"),
        layer("dense", units=3),
        layer("parallel", branches=[[layer("recall", name="x")], []], merge="concat"),
    )
    x = batch(graph)
    h = F.linear(torch.from_numpy(x), weight(graph, "layers.1.weight"))
    held(graph, x, torch.cat([torch.from_numpy(x), h], -1))
