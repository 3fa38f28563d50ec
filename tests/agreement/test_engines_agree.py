"""Two engines that share no propagation must say the same of the same network."""

import pytest

from tests.agreement.ten_nets import NETS, measure

# decades: |analytic - sampled| of the activation gradient, (median, worst) over the layers
BOUNDS = {
    "CNN x8, He": (0.1, 0.25),
    "ResNet-18-like, BatchNorm": (0.25, 0.4),
    "pre-LN transformer x6": (0.1, 0.3),
    # tied weights: docs/theory/agreement.md
    "tanh RNN unrolled, T=50": (1.0, 2.5),
}


@pytest.mark.parametrize("name", NETS)
def test_the_engines_agree_on_every_comparable_layer(name):
    row = measure(name)
    median, worst = BOUNDS.get(name, (0.1, 0.3))
    assert row.comparable == row.layers
    assert row.median <= median
    assert row.worst <= worst
