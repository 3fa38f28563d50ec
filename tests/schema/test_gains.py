"""Gains against torch's table and, elsewhere, against the integral that defines them."""

import itertools
import math
from typing import get_args

import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import nn

from gradgauge.errors import InvalidSpec
from gradgauge.schema.gains import GainName, gain_for
from gradgauge.schema.laws import InitSpec


@pytest.mark.parametrize(
    ("name", "param"),
    [
        ("linear", None),
        ("sigmoid", None),
        ("tanh", None),
        ("relu", None),
        ("leaky_relu", None),
        ("leaky_relu", 0.3),
        ("selu", None),
    ],
)
def test_gains_are_torchs_where_torch_has_them(name, param):
    assert gain_for(name, param) == pytest.approx(nn.init.calculate_gain(name, param), rel=1e-12)


F = nn.functional
PHI = {
    "Gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "swish": F.silu,
    "Elu": F.elu,
    "Celu": F.celu,
    "mish": F.mish,
    "hard_swish": F.hardswish,
    "HardSigmoid": lambda z: torch.clamp(0.2 * z + 0.5, 0, 1),
    "softplus": F.softplus,
    "softsign": F.softsign,
    "erf": torch.erf,
    "thresholded_relu": lambda z: F.threshold(z, 1.0, 0.0),
    "sin": torch.sin,
    "cos": torch.cos,
}


@pytest.mark.parametrize("name", PHI)
def test_other_gains_keep_the_second_moment_of_a_unit_normal(name):
    def integrand(z: float) -> float:
        phi = float(PHI[name](torch.tensor(z, dtype=torch.float64)))
        return phi * phi * stats.norm.pdf(z)

    cuts = [-12, -3, -2.5, -1, 0, 1, 2.5, 3, 12]
    moment = sum(quad(integrand, a, b)[0] for a, b in itertools.pairwise(cuts))
    assert gain_for(name) == pytest.approx(1 / math.sqrt(moment), rel=1e-8)


def test_an_unknown_activation_has_no_gain():
    with pytest.raises(InvalidSpec, match="no gain is known for the activation 'squish'"):
        gain_for("squish")


@pytest.mark.parametrize("name", get_args(GainName))
def test_a_spec_may_name_every_gain(name):
    said = InitSpec.model_validate({"kind": "orthogonal", "gain": name})
    assert said.gain == gain_for(name)
