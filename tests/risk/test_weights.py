"""Fresh or not: torch's own initialisers against weights that training has shaped."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from gradgauge.graph.layers import find_layers
from gradgauge.graph.read_onnx import read_onnx
from gradgauge.graph.read_spec import read_spec
from gradgauge.risk.weights import _chance, judge
from tests.handmade import made, node

INITIALISERS = [
    nn.init.kaiming_normal_,
    nn.init.kaiming_uniform_,
    nn.init.xavier_normal_,
    nn.init.xavier_uniform_,
    nn.init.orthogonal_,
    lambda W, generator: nn.init.trunc_normal_(W, std=0.02, a=-0.04, b=0.04, generator=generator),
]


def state(*weights, extra=(), stored=None):
    nodes = [
        node("MatMul", f"{f'h{i - 1}' if i else 'x'} W{i}", f"h{i}") for i in range(len(weights))
    ]
    nodes += extra
    held = {f"W{i}": W for i, W in enumerate(weights)} | (stored or {})
    graph = read_onnx(made(nodes, {"x": ["N", 64]}, nodes[-1].output[0], held))
    return judge(graph, find_layers(graph.model))[0]


@pytest.mark.parametrize("init", INITIALISERS)
def test_every_law_of_torchs_is_fresh(init):
    generator = torch.Generator().manual_seed(0)
    weights = [init(torch.empty(64, 64), generator=generator).numpy() for _ in range(6)]
    assert state(*weights) == "fresh"


def test_heavy_tails_constants_and_rubbish_are_not_fresh():
    rng = np.random.default_rng(0)
    assert state(rng.standard_t(2, size=(64, 64))) == "unknown"
    assert state(np.ones((64, 64))) == "unknown"
    assert state(np.full((64, 64), np.nan)) == "unknown"
    assert state(np.zeros((64, 64))) == "unknown"


def test_a_law_is_known_at_any_scale():
    W = np.random.default_rng(0).normal(size=(64, 64))
    assert state(W * 1e37) == "fresh"
    assert state(W * 1e-30) == "fresh"


def test_running_statistics_that_moved_mean_training():
    W = np.random.default_rng(0).normal(size=(64, 64))
    norm = [node("BatchNormalization", "h0 g b m v", "y")]
    held = {"g": np.ones(64), "b": np.zeros(64), "m": np.zeros(64), "v": np.ones(64)}
    assert state(W, extra=norm, stored=held) == "fresh"
    assert state(W, extra=norm, stored=held | {"m": np.full(64, 0.1)}) == "trained"


def test_a_spec_is_fresh_by_construction_and_a_graph_without_matrices_unknown():
    spec = read_spec(b"gradgauge: 1\ninput: {shape: [8]}\nlayers: [{type: dense, units: 4}]")
    assert judge(spec, find_layers(spec.model))[0] == "fresh"
    graph = read_onnx(made([node("Relu", "x", "y")], {"x": ["N", 8]}, "y"))
    assert judge(graph, find_layers(graph.model))[0] == "unknown"


SMALL = [
    (width, act, normed, optimizer)
    for width, act in ((32, nn.ReLU), (48, nn.Tanh), (64, nn.GELU))
    for normed, optimizer in (
        (False, torch.optim.Adam),
        (False, torch.optim.SGD),
        (True, torch.optim.Adam),
        (True, torch.optim.SGD),
    )
]


LOST = (64, False, torch.optim.Adam)


@pytest.mark.parametrize(("width", "act", "normed", "optimizer"), SMALL)
def test_small_nets_are_fresh_before_a_short_training_and_never_after(
    width, act, normed, optimizer
):
    torch.manual_seed(width)  # noqa: TID251 - torch's own layers draw from it
    parts = [nn.Linear(64, width), *([nn.LayerNorm(width)] if normed else []), act()]
    net = nn.Sequential(*parts, nn.Linear(width, width), act(), nn.Linear(width, 64))
    assert judged(net) == "fresh"
    x = torch.randn(256, 64)
    y = (x @ torch.randn(64, 64)).argmax(1)
    steps = optimizer(net.parameters(), lr=0.1 if optimizer is torch.optim.SGD else 3e-3)
    for _ in range(60):
        steps.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        steps.step()
    # one of the twelve, an Adam that moved all weights far, is unknown
    assert judged(net) in (
        {"trained", "unknown"} if (width, normed, optimizer) == LOST else {"trained"}
    )


def judged(net):
    """The state of the network's weights as a graph of its matrices and norms, in order."""
    nodes, held, now = [], {}, "x"
    for i, part in enumerate(net):
        if isinstance(part, nn.Linear):
            held[f"W{i}"] = part.weight.detach().numpy().T
            nodes.append(node("MatMul", f"{now} W{i}", f"h{i}"))
        elif isinstance(part, nn.LayerNorm):
            held |= {f"s{i}": part.weight.detach().numpy(), f"b{i}": part.bias.detach().numpy()}
            nodes.append(node("LayerNormalization", f"{now} s{i} b{i}", f"h{i}"))
        else:
            nodes.append(node("Tanh", now, f"h{i}"))
        now = f"h{i}"
    graph = read_onnx(made(nodes, {"x": ["N", 64]}, now, held))
    return judge(graph, find_layers(graph.model))[0]


@pytest.mark.parametrize("factor", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("init", INITIALISERS)
def test_a_layer_scaled_as_a_whole_is_not_taken_for_trained(init, factor):
    generator = torch.Generator().manual_seed(1)
    weights = [init(torch.empty(64, 64), generator=generator).numpy() for _ in range(5)]
    assert state(*weights[:4], weights[4] * factor) == "fresh"


@pytest.mark.parametrize("count", [16, 200, 4000])
@pytest.mark.parametrize("gap", [1.7, 2.2, 3.0])
def test_the_chance_of_a_departure_is_the_two_sided_tests(count, gap):
    below = np.clip((np.arange(count) + 0.5) / count - gap / count**0.5, 0.0, 1.0)
    exact = stats.kstest(below, stats.uniform.cdf).pvalue
    assert exact < 0.01
    assert _chance(below) == pytest.approx(exact, rel=1e-4)
