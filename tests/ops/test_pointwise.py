"""Pow by one number that has a gradient: torch.pow's values and derivatives, by a faster way."""

import pytest
import torch

from gradgauge.ops.pointwise import Pow

BASES = {
    "positive": [0.3, 1.0, 2.5],
    "with a zero": [0.0, 1.0, 2.0],
    "with a negative": [-1.5, 1.0, 2.0],
    "empty": [],
}


def _derivatives(power, base, exponent):
    x = torch.tensor(base, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(exponent, dtype=torch.float64, requires_grad=True)
    z = power(x, y)
    sent = torch.linspace(0.5, 2.0, len(base), dtype=torch.float64)
    return z, *torch.autograd.grad(z, (x, y), sent)


@pytest.mark.parametrize("exponent", [3.0, 2.0, 1.0, 0.5, 0.0, -1.0])
@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_a_power_and_its_derivatives_are_torchs(base, exponent):
    got = _derivatives(Pow, base, exponent)
    want = _derivatives(torch.pow, base, exponent)
    torch.testing.assert_close(got, want, equal_nan=True)


def test_a_power_can_be_differentiated_twice():
    x = torch.tensor([0.3, 1.0, 2.5], dtype=torch.float64, requires_grad=True)
    y = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Pow, (x, y))
    assert torch.autograd.gradgradcheck(Pow, (x, y))
