"""Initial laws against torch.nn.init: support, moments, distribution, structure."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from gradgauge.graph.init import Law, draw, fans, std

SHAPE = (200, 300)  # torch's Linear: out, in
CONV = (64, 32, 3, 3)


def fanned(kind: str, shape=SHAPE, **given) -> Law:
    layout = "conv" if len(shape) > 2 else "out_in"
    fan_in, fan_out = fans(shape, layout=layout)
    return Law(kind, shape, fan_in=fan_in, fan_out=fan_out, **given)


def torch_draw(fill: Callable[..., object], shape=SHAPE) -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    weight = torch.empty(shape, dtype=torch.float64)
    fill(weight, generator)
    return weight.numpy()


LAWS = {
    "normal": (
        Law("normal", SHAPE, scale=0.3, value=0.7),
        lambda w, g: nn.init.normal_(w, 0.7, 0.3, generator=g),
    ),
    "uniform": (
        Law("uniform", SHAPE, low=-0.2, high=0.5),
        lambda w, g: nn.init.uniform_(w, -0.2, 0.5, generator=g),
    ),
    "truncated_normal": (
        Law("truncated_normal", SHAPE, scale=0.5, value=0.1, low=-0.6, high=1.4),
        lambda w, g: nn.init.trunc_normal_(w, 0.1, 0.5, -0.6, 1.4, generator=g),
    ),
    "glorot_uniform": (
        fanned("glorot_uniform", gain=5 / 3),
        lambda w, g: nn.init.xavier_uniform_(w, 5 / 3, generator=g),
    ),
    "glorot_normal": (
        fanned("glorot_normal"),
        lambda w, g: nn.init.xavier_normal_(w, generator=g),
    ),
    "he_uniform": (
        fanned("he_uniform"),
        lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    ),
    "he_normal": (
        fanned("he_normal", mode="fan_out"),
        lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g),
    ),
    "lecun_uniform": (
        fanned("lecun_uniform"),
        lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="linear", generator=g),
    ),
    "lecun_normal": (
        fanned("lecun_normal"),
        lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g),
    ),
    "torch_default": (
        fanned("torch_default"),
        lambda w, g: nn.init.kaiming_uniform_(w, math.sqrt(5), generator=g),
    ),
    "conv_he_normal": (
        fanned("he_normal", CONV, mode="fan_out"),
        lambda w, g: nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu", generator=g),
    ),
    "conv_glorot_uniform": (
        fanned("glorot_uniform", CONV),
        lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    ),
    "mup_output": (
        fanned("mup_output", gain=8.0),
        lambda w, g: nn.init.normal_(w, 0.0, 8 / w.shape[1], generator=g),
    ),
    "orthogonal": (
        fanned("orthogonal", gain=1.5),
        lambda w, g: nn.init.orthogonal_(w, 1.5, generator=g),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_elements_are_distributed_as_torch_draws_them(name):
    law, fill = LAWS[name]
    ours = draw(law, np.random.default_rng(0)).ravel()
    theirs = torch_draw(fill, law.shape).ravel()
    assert ours.dtype == np.float32
    assert stats.ks_2samp(ours, theirs).pvalue > 1e-3
    n = ours.size
    assert ours.mean() == pytest.approx(theirs.mean(), abs=5 * std(law) / math.sqrt(n / 2))
    assert ours.std() == pytest.approx(theirs.std(), rel=5 / math.sqrt(n / 2))
    assert std(law) == pytest.approx(theirs.std(), rel=5 / math.sqrt(n))


@pytest.mark.parametrize("scale", [0.95, 1.05])
def test_a_law_five_per_cent_off_would_be_told_apart(scale):
    law, fill = LAWS["glorot_uniform"]
    wrong = scale * draw(law, np.random.default_rng(0)).ravel()
    assert stats.ks_2samp(wrong, torch_draw(fill).ravel()).pvalue < 1e-3


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 2.0), (0.3, 9.0)])
def test_the_truncated_normal_has_scipys_standard_deviation(low, high):
    law = Law("truncated_normal", (1,), scale=0.7, value=0.2, low=low, high=high)
    a, b = (low - 0.2) / 0.7, (high - 0.2) / 0.7
    assert std(law) == pytest.approx(stats.truncnorm(a, b, 0.2, 0.7).std(), rel=1e-9)


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40), (20, 8, 3, 3), (90, 8, 3, 3)])
def test_orthogonal_rows_or_columns_are_orthonormal_times_the_gain(shape):
    Q = draw(Law("orthogonal", shape, gain=1.5), np.random.default_rng(0), np.float64)
    Q = Q.reshape(shape[0], -1)
    short = Q if Q.shape[0] >= Q.shape[1] else Q.T
    np.testing.assert_allclose(short.T @ short, 1.5**2 * np.eye(short.shape[1]), atol=1e-12)


def test_orthogonal_matrices_are_uniform_over_the_group():
    """Half of them have determinant -1, and the trace of a Haar matrix has variance 1."""
    rng = np.random.default_rng(0)
    drawn = [draw(Law("orthogonal", (5, 5)), rng, np.float64) for _ in range(2000)]
    assert np.mean([np.linalg.det(Q) < 0 for Q in drawn]) == pytest.approx(0.5, abs=0.05)
    assert np.var([np.trace(Q) for Q in drawn]) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_identity_is_torchs_eye(shape):
    ours = draw(Law("identity", shape, gain=2.0), np.random.default_rng(0))
    np.testing.assert_array_equal(ours, 2 * nn.init.eye_(torch.empty(shape)).numpy())


def test_identity_of_a_kernel_is_torchs_dirac():
    ours = draw(Law("identity", (6, 4, 3, 5)), np.random.default_rng(0))
    np.testing.assert_array_equal(ours, nn.init.dirac_(torch.empty(6, 4, 3, 5)).numpy())


@pytest.mark.parametrize(
    ("law", "value"),
    [
        (Law("zeros", (2, 3)), 0.0),
        (Law("ones", (2, 3)), 1.0),
        (Law("constant", (2, 3), value=0.25), 0.25),
        (Law("constant", (), value=0.25), 0.25),
    ],
)
def test_laws_that_draw_nothing_hold_one_value(law, value):
    drawn = draw(law, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn, np.full(law.shape, value, np.float32))
    assert std(law) == 0


def test_stacked_draws_are_independent_and_each_of_its_own_shape():
    law = Law("orthogonal", (1, 12, 4), unit=(4, 4))
    gates = draw(law, np.random.default_rng(0), np.float64).reshape(3, 4, 4)
    for Q in gates:
        np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-12)
    assert not np.allclose(gates[0], gates[1])
    assert std(law) == 0.5


def test_the_same_generator_draws_the_same_weights():
    law = fanned("he_normal")
    a, b = (draw(law, np.random.Generator(np.random.PCG64(5))) for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, draw(law, np.random.Generator(np.random.PCG64(6))))


@pytest.mark.parametrize("shape", [(7, 5), (8, 3, 5), (8, 4, 3, 3), (8, 4, 3, 3, 2)])
def test_fans_are_torchs(shape):
    theirs = nn.init._calculate_fan_in_and_fan_out(torch.empty(shape))
    assert fans(shape, layout="conv" if len(shape) > 2 else "out_in") == theirs


def test_a_matmuls_weight_has_its_fans_the_other_way_round():
    assert fans((5, 7), layout="in_out") == fans((7, 5), layout="out_in") == (5, 7)


def test_a_shift_is_added_to_its_part_of_the_last_axis_after_the_draw():
    law = Law("normal", (2, 6), scale=0.1, unit=(6,))
    moved = draw(replace(law, shifts=((2, 4, 1.0),)), np.random.default_rng(0))
    plain = draw(law, np.random.default_rng(0))
    np.testing.assert_allclose(moved - plain, [[0, 0, 1, 1, 0, 0]] * 2, atol=1e-7)
