"""ReLU of values that are not Gaussian, against drawn ones."""

import pytest
import torch

from gradgauge.analytic import responses
from tests.analytic.autograd import seeded

DRAWS = 200_000


def stream(blocks):
    """Of y <- relu(y + b), b ~ N(0, 1), drawn: the sum and y, block by block."""
    y = torch.zeros(DRAWS, dtype=torch.float64)
    for row in torch.randn(blocks, DRAWS, generator=seeded(3), dtype=torch.float64):
        held = y + row
        y = held.clamp_min(0.0)
        yield held, y


def test_a_rectified_stream_keeps_its_skewness():
    m, v = torch.zeros(1).double(), torch.ones(1).double()
    plain, third = (m, v), None
    for held, y in stream(8):
        gaussian = responses.relu(*plain)
        r = responses.relu(m, v)
        r = r if third is None else responses.skewed(r, m, v, third)
        third = responses.relu_third(r, m, v, third)
        z = (held - held.mean()) / held.std()
        seen = (held > 0).double()
        assert float(r.rate) == pytest.approx(float(seen.mean()), abs=0.005)
        assert float(r.mean) == pytest.approx(float(y.mean()), rel=0.03)
        assert float(r.var) == pytest.approx(float(y.var()), rel=0.03)
        assert float(r.lean) == pytest.approx(float((z * seen).mean()), rel=0.05)
        assert float(r.both) == pytest.approx(float((z * y).mean()), rel=0.05)
        assert float(third) == pytest.approx(float((y - y.mean()).pow(3).mean()), rel=0.17)
        m, v, plain = r.mean, r.var + 1, (gaussian.mean, gaussian.var + 1)
    assert float(gaussian.var) < 0.8 * float(y.var())  # without it the stream loses its spread


def test_where_nothing_is_skewed_nothing_changes():
    m, v = (
        torch.randn(50, generator=seeded(1)).double(),
        torch.rand(50, generator=seeded(2)).double(),
    )
    r = responses.relu(m, v)
    same = responses.skewed(r, m, v, torch.zeros(50).double())
    for name in ("mean", "second", "rate", "slope", "lean", "carried", "both"):
        torch.testing.assert_close(getattr(same, name), getattr(r, name))
