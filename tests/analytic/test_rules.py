"""Single ops: moments and gradients of one node against exact sums or a sample of their own."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from gradgauge.analytic import linear, movement, normalisation, pooling, products
from gradgauge.analytic.axes import of_input, reshaped, transposed
from gradgauge.analytic.binary import add, mul
from gradgauge.analytic.call import Call
from gradgauge.analytic.moments import Flow, Known, Moments, Pulled, Signal, merge
from gradgauge.analytic.probe import draw
from gradgauge.ops.table import lookup
from tests.analytic.autograd import seeded

X = Moments(0.3, 1.2, 0.4, 0.5)


def call(op, inputs, opset=18, **attributes):
    row = lookup("", op, opset)
    names = tuple(f"v{i}" for i in range(len(inputs)))
    return Call(op, row.run, names, tuple(inputs), attributes, 8, batch_statistics=True)


def test_a_dense_layer_is_exact_for_inputs_of_one_mean_and_variance():
    W = torch.randn(5, 7, generator=seeded(0), dtype=torch.float64) + 0.2
    b = torch.randn(5, generator=seeded(1), dtype=torch.float64)
    x = Signal((8, 7), "bf", Moments(0.3, 1.2, 0.09, 0.09), 8)
    step = linear.gemm(call("Gemm", [x, Known(W), Known(b)], transB=1))
    got = step.outputs[0].moments
    mean = 0.3 * W.sum(1) + b
    assert got.m == pytest.approx(float(mean.mean()), rel=1e-12)
    variance = (W * W).sum(1) * (1.2 - 0.09)
    assert got.q == pytest.approx(float((mean**2 + variance).mean()), rel=1e-12)
    assert got.p == pytest.approx(float((mean**2).mean()), rel=1e-12)
    to_x, to_w, to_b = step.pull([Pulled(1.0)])
    assert to_x.g == pytest.approx(float((W * W).sum(0).mean()), rel=1e-12)
    assert to_w.g == pytest.approx(8 * 1.2, rel=1e-12)
    assert to_b.g == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("stride", "padding", "groups"), [(1, 1, 1), (2, 1, 1), (1, 0, 2), (2, 2, 4)]
)
def test_a_convolution_counts_its_taps_exactly(stride, padding, groups):
    W = torch.randn(8, 4 // groups, 3, 3, generator=seeded(2), dtype=torch.float64)
    x = Signal((8, 4, 9, 9), "bfpp", Moments(0.0, 1.0, 0.0, 0.0), 8)
    step = linear.convolution(
        call("Conv", [x, Known(W)], strides=[stride] * 2, pads=[padding] * 4, group=groups)
    )
    leaf = torch.zeros(1, 4, 9, 9, dtype=torch.float64, requires_grad=True)
    squares = functional.conv2d(leaf, W * W, None, stride, padding, 1, groups)
    ones = torch.ones(1, 4, 9, 9, dtype=torch.float64)
    variance = functional.conv2d(ones, W * W, None, stride, padding, 1, groups)
    assert step.outputs[0].moments.q == pytest.approx(float(variance.mean()), rel=1e-12)
    (back,) = torch.autograd.grad(squares, leaf, torch.ones_like(squares))
    to_x, to_w = step.pull([Pulled(1.0)])
    assert to_x.g == pytest.approx(float(back.mean()), rel=1e-12)
    # dL/dW of independent g and x of unit variance: as many terms as a tap has positions.
    weight = torch.zeros_like(W).requires_grad_()
    terms = functional.conv2d(ones, weight, None, stride, padding, 1, groups)
    (uses,) = torch.autograd.grad(terms, weight, torch.ones_like(terms))
    assert to_w.g == pytest.approx(8 * float((uses * W * W).sum() / (W * W).sum()), rel=1e-9)


def sampled(signal, count=400):
    """Draws of the signal's law, as one tensor of `count` times its batch."""
    generator = seeded(17)
    return torch.cat([draw(signal, generator) for _ in range(count)])


@pytest.mark.parametrize("op", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_norms_over_features_pass_the_published_share_of_the_gradient(op):
    n = 32
    x = Signal((8, n), "bf", Moments(0.0, 1.0, 0.0, 0.0), 8)
    rules = {
        "LayerNormalization": (normalisation.layer_norm, (n - 2) / (n - 3)),
        "SimplifiedLayerNormalization": (normalisation.rms_norm, (n - 1) / (n - 2)),
    }
    rule, published = rules[op]
    got = rule(call(op, [x, Known(torch.ones(n))], epsilon=0.0)).pull([Pulled(1.0)])[0].g
    leaf = sampled(x, 4000).requires_grad_()
    centred = leaf - leaf.mean(1, keepdim=True) if op == "LayerNormalization" else leaf
    y = centred / centred.square().mean(1, keepdim=True).sqrt()
    y.backward(torch.randn(y.shape, generator=seeded(3), dtype=torch.float64))
    assert got == pytest.approx(published, rel=1e-12)
    assert got == pytest.approx(float(leaf.grad.square().mean()), rel=0.01)


def test_batch_norm_divides_by_what_inputs_do_not_share():
    x = Signal((8, 16), "bf", Moments(0.3, 1.2, 0.4, 1.2), 8)
    ones, zeros = Known(torch.ones(16)), Known(torch.zeros(16))
    step = normalisation.batch_norm(call("BatchNormalization", [x, ones, zeros, zeros, ones]))
    got = step.outputs[0].moments
    assert (got.m, got.p) == (0.0, 0.0)
    assert got.q == pytest.approx(1.0, abs=1e-4)
    assert step.pull([Pulled(1.0)])[0].g == pytest.approx(1 / (1.2 - 0.4), rel=1e-4)


@pytest.mark.parametrize(("scale", "tolerance"), [(0.25, 0.03), (0.5, 0.03), (1.0, 0.05)])
def test_softmax_weights_concentrate_as_published(scale, tolerance):
    T = 256
    x = Signal((8, 4, T, T), "bfpp", Moments(0.0, scale**2, 0.0, 0.0), 8)
    got = products.softmax(call("Softmax", [x])).outputs[0].moments
    assert got.m == pytest.approx(1 / T, rel=1e-9)
    assert got.q * T * T == pytest.approx(math.exp(scale**2), rel=tolerance)


def test_what_the_keys_share_does_not_pass_softmax():
    x = Signal((8, 4, 16, 16), "bfpp", Moments(0.0, 0.5, 0.0, 0.0), 8)
    step = products.softmax(call("Softmax", [x]))
    assert step.pull([Pulled(1.0, 1.0)])[0].g == 0.0
    leaf = math.sqrt(0.5) * torch.randn(20_000, 16, generator=seeded(5), dtype=torch.float64)
    leaf.requires_grad_()
    y = torch.softmax(leaf, 1)
    y.backward(torch.randn(y.shape, generator=seeded(6), dtype=torch.float64))
    assert step.pull([Pulled(1.0)])[0].g == pytest.approx(float(leaf.grad.square().mean()), rel=0.1)


def test_global_average_pooling_makes_a_gradient_common():
    x = Signal((8, 4, 5, 5), "bfpp", X, 8)
    step = pooling.global_average_pool(call("GlobalAveragePool", [x]))
    got = step.outputs[0].moments
    values = sampled(x).mean((2, 3))
    assert got.q == pytest.approx(float(values.square().mean()), rel=0.05)
    back = step.pull([Pulled(1.0)])[0]
    assert back.g == pytest.approx(1 / 625)
    assert back.c == pytest.approx(back.g)


def test_sums_and_products_of_draws_have_the_moments_said():
    a, b = Signal((8, 64), "bf", X, 8), Signal((8, 64), "bf", Moments(-0.5, 0.9, 0.3, 0.3), 8)
    for rule, op in ((add, torch.add), (mul, torch.mul)):
        got = rule(call("Add" if rule is add else "Mul", [a, b])).outputs[0].moments
        generator = seeded(8)
        rows = [op(draw(a, generator), draw(b, generator)) for _ in range(2000)]
        values = torch.stack(rows)
        assert got.m == pytest.approx(float(values.mean()), abs=0.02)
        assert got.q == pytest.approx(float(values.square().mean()), rel=0.02)
        pairs = (values[:, 0] * values[:, 1]).mean()
        assert got.p == pytest.approx(float(pairs), abs=0.03)


def test_a_slice_remembers_where_its_gradient_came_from():
    x = Signal((8, 6, 4), "bpf", X, 8)
    last = Known(torch.tensor(-1))
    step = movement.move(call("Gather", [x, last], axis=1))
    assert step.outputs[0].shape == (8, 4)
    assert step.outputs[0].axes == "bf"
    back = step.pull([Pulled(3.0)])[0]
    assert back.g == pytest.approx(0.5)
    assert back.weights[:, -1].eq(6).all()
    assert back.weights[:, :-1].eq(0).all()


@pytest.mark.parametrize(
    ("shape", "axes", "target", "want"),
    [
        ((8, 16, 64), "bpf", (8, 16, 4, 16), "bpff"),
        ((8, 16, 4, 16), "bpff", (8, 16, 64), "bpf"),
        ((8, 32, 5, 5), "bfpp", (8, 800), "bf"),
        ((8, 32, 5, 5), "bfpp", (8, 32, 25), "bfp"),
        ((8, 16, 64), "bpf", (128, 64), "nf"),
        ((128, 64), "nf", (8, 16, 64), "bpf"),
        ((8, 32, 1, 1), "bfpp", (8, 32), "bf"),
    ],
)
def test_roles_of_axes_follow_a_reshape(shape, axes, target, want):
    assert reshaped(shape, axes, target, 8) == want


def test_roles_of_inputs_are_those_of_images_and_tokens():
    assert [of_input(4, 0), of_input(3, 0), of_input(2, 0), of_input(3, 1)] == [
        "bfpp",
        "bpf",
        "bf",
        "pbf",
    ]
    assert transposed("bpff", [0, 2, 1, 3]) == "bfpf"


def test_gradients_that_meet_add_up_whatever_their_size():
    met = merge([Flow(-400.0, 1.0), Flow(-400.0, 0.0), Flow(-math.inf)])
    assert met.log10_g == pytest.approx(-400 + math.log10(2))
    assert met.common == pytest.approx(0.5)


def test_draws_have_both_overlaps_of_their_signal():
    x = Signal((8, 8, 512), "bpf", Moments(0.2, 1.0, 0.3, 0.5), 8)
    values = sampled(x, 1).double()
    assert float(values.square().mean()) == pytest.approx(1.0, rel=0.1)
    assert float((values[0] * values[1]).mean()) == pytest.approx(0.3, abs=0.08)
    assert float((values[:, 0] * values[:, 1]).mean()) == pytest.approx(0.5, abs=0.08)


def test_trained_running_statistics_are_taken_to_fit_the_activations():
    x = Signal((8, 64, 6, 6), "bfpp", Moments(0.6, 1.5, 0.5, 0.5), 8)
    generator = seeded(9)
    gain, bias, mean = torch.randn(3, 64, generator=generator, dtype=torch.float64)
    mean = 0.6 + math.sqrt(0.5 - 0.36) * mean
    variance = torch.ones(64, dtype=torch.float64)
    inputs = [x, *(Known(v) for v in (gain, bias, mean, variance))]
    asked = replace(call("BatchNormalization", inputs), batch_statistics=False)
    step = normalisation.batch_norm(asked)
    # Channels of those very means and variance 1, through the op itself.
    values = mean[:, None] + torch.randn(64, 20_000, generator=generator, dtype=torch.float64)
    y = functional.batch_norm(values.T, mean, variance, gain, bias)
    assert step.outputs[0].moments.q == pytest.approx(float(y.square().mean()), rel=0.02)
    want = float((gain * gain).mean())
    assert step.pull([Pulled(1.0)])[0].g == pytest.approx(want, rel=1e-4)
    assert "running_statistics_fit_the_activations" in step.assumptions
