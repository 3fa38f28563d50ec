"""How far inputs stray from one another, against thousands of inputs run through torch."""

import numpy as np
import pytest
import torch
from torch import nn

from gradgauge.analytic import forward, strays
from gradgauge.graph.reading import read
from gradgauge.risk.features import Evidence, features
from tests.agreement.errors import said, truth
from tests.agreement.families import Net, nets
from tests.analytic.autograd import analyse, export, seeded, to_graph


def chain(act, gain, depth, width, norm=None):
    generator, parts = seeded(3), []
    for _ in range(depth):
        layer = nn.Linear(width, width)
        nn.init.normal_(layer.weight, std=(gain / width) ** 0.5, generator=generator)
        nn.init.zeros_(layer.bias)
        parts += [layer, *([norm(width)] if norm else []), act()]
    return nn.Sequential(*parts[:-1])


def told(net, width):
    """The engine's deviation of ln of an input's mean square at the net's output."""
    graph = to_graph(export(net, torch.zeros(2, width)))
    trace = forward.run(graph.model, read(graph.model))
    return strays.of_values(trace).values["y"]


def measured(net, width):
    x = torch.randn(4096, width, generator=seeded(8), dtype=torch.float64)
    with torch.no_grad():
        return float(net.double()(x).square().mean(1).log().std())


@pytest.mark.parametrize(
    ("act", "gain"), [(nn.SiLU, 2.2), (nn.GELU, 1.8), (nn.ReLU, 2.0), (nn.Tanh, 1.0), (nn.SELU, 1)]
)
def test_inputs_stray_as_far_as_told(act, gain):
    net = chain(act, gain, 10, 256)
    assert 0.6 <= told(net, 256) / measured(net, 256) <= 2.0


def test_silu_tells_inputs_further_apart_than_tanh():
    assert told(chain(nn.SiLU, 2.2, 16, 256), 256) > 4 * told(chain(nn.Tanh, 1.0, 16, 256), 256)


def test_a_layer_norm_makes_inputs_alike():
    net = chain(nn.SiLU, 2.2, 8, 256, nn.LayerNorm)
    assert told(net, 256) == 0.0
    assert measured(net, 256) < 1e-4


def test_the_band_of_a_deep_silu_network_covers_its_gradients():
    net = next(n for n in nets(3) if n.name.startswith("silu"))
    mine = said(net)
    error = np.abs(mine.backward - truth(net).mean)
    assert error.max() > 0.5
    assert (error <= mine.band).mean() >= 0.9


def test_the_calibration_goes_by_what_widths_make_of_the_band():
    net = chain(nn.SiLU, 2.2, 12, 256)
    layers, told = analyse(export(net, torch.zeros(2, 256)))
    found = features(Evidence(layers, {}, told, None))
    assert found["analytic.band"] == pytest.approx(0.217 * (5 * 11 / 256) ** 0.5, rel=0.01)
    assert max(row.band_decades for row in told.layers.values()) > 1.2 * found["analytic.band"]


def test_the_band_of_a_rectified_network_stays_what_its_widths_make_it():
    net: Net = next(n for n in nets(3) if n.name == "relu he 24x128")
    assert said(net).band[0] == pytest.approx(0.217 * (5 * 24 / 128) ** 0.5, rel=0.02)


@pytest.mark.parametrize("tiny", [1, 3, 5])
def test_signals_whose_powers_no_float_holds_stray_like_larger_ones(tiny):
    """Behind five such layers a mean square is 1e-280: its square, and the fourth power, are 0."""
    net = chain(nn.Tanh, 1.0, 6, 64)
    with torch.no_grad():
        for layer in net[: 2 * tiny : 2]:
            layer.weight.mul_(1e-28)
    assert told(net, 64) == pytest.approx(measured(net, 64), rel=0.5)
